"""All quick cases in one process, which imports torch and transformers once; a line of JSON for each."""

import inference_cases
import training_cases
from fake_gpu import report

CASES = training_cases.CASES | inference_cases.CASES
report(CASES, [name for name in CASES if not name.startswith("full")])

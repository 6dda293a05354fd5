"""Quality of conversions: outputs are paired with their sources and measured."""

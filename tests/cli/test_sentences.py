"""What commands say at a terminal when they are done."""

from rvc_core.cli.sentences import in_sentences

SONG = {
    "output": "songs/s_alice/s_alice.wav",
    "seconds": 83.0,
    "stems": [{}, {}, {}],
    "transpose": {"lead": 12.0},
    "levels": {"true_peak_db": -1.04},
    "warnings": ["skipped dereverb: get it with: rvc weights fetch dereverb"],
    "skipped": False,
}


def test_a_song_is_told_in_three_lines() -> None:
    told = in_sentences("song", "", {"files": [SONG, {"source": "b", "error": "no sound", "hint": ""}], "failed": 1})
    assert told == [
        "songs/s_alice/s_alice.wav: 1:23 min, and 3 stems beside it",
        "  lead +12 semitones; true peak -1.0 dB",
        "  note: skipped dereverb: get it with: rvc weights fetch dereverb",
    ]
    assert "nothing changed" in (in_sentences("song", "", {"files": [SONG | {"skipped": True}]}) or [""])[0]


def test_stems_are_told_with_their_levels() -> None:
    song = {"stems": {"vocals": "a/vocals.wav", "instrumental": "a/i.wav"}, "notes": ["it ends early"]}
    told = in_sentences("separate", "", {"songs": [song | {"levels_db": {"vocals": -20.4, "instrumental": None}}]})
    assert told == ["a/vocals.wav: -20 dB", "a/i.wav: silent", "  note: it ends early"]


def test_a_spoken_text_is_told_with_what_was_misheard_and_what_is_late() -> None:
    words = {"error_rate": 0.034, "engine_error_rate": 0.02, "sentences": 2, "words": 12, "unknown": 3}
    cues = [{"number": 1, "late_seconds": 0.0}, {"number": 2, "late_seconds": 0.42}]
    made = {"output": "n.wav", "seconds": 5.2, "transpose": -3.0, "engine": "espeak-ng", "warnings": []}
    assert in_sentences("speak", "", made | {"spoken": cues, "words": words}) == [
        "n.wav: 0:05 min, 2 sentences, -3 semitones",
        "  espeak-ng spoke, and the voice said it again",
        "  a recogniser misses 3% of the words, and 2% of the engine's own speech",
        "  3 of 15 words were not judged: they are not in its dictionary",
        "  cue 2 ends 0.4 s late",
    ]

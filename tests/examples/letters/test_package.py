"""What `letters.package` wrote belongs together: the weights, their record and the model card."""

import json

from letters.package import CARD, RECORD, card_figures
from sefa.bundled import BUNDLED, LETTERS
from sefa_runtime.files import sha256_of


def test_the_record_is_of_the_weights_and_the_card_has_its_figures() -> None:
    record = json.loads(RECORD.read_text())
    assert record["generator"]["sha256"] == sha256_of(BUNDLED[LETTERS])
    assert card_figures(record) in CARD.read_text()
    assert record["quality"]["accuracy"]["generated"]["but_for_ambiguous"] >= 0.95
    named = {one["measured"]: abs(one["correlation"]) for one in record["directions"]["all"]["named"]}
    assert named["weight"] >= 0.9
    assert named["slant"] >= 0.7

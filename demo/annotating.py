"""What people would do in a labeling program: annotate, think again, take something back."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from demo.media import sounds
from labelport.catalog import Catalog, tasks
from labelport.catalog.annotations import create, delete, update
from labelport.model import AnnotationRow, Storage

ANNOTATORS = ("ann@example.org", "ben@example.org")
_KINDS = ("noise", "speech", "music")


def annotate(catalog: Catalog, media: Storage) -> int:
    """Annotate every task that *media* brought, each by one of two people; how many."""
    chance = random.Random(7)  # the same every time
    sound_keys = {sound.key for sound in sounds()}
    with catalog.begin() as connection:
        found = tasks.page(connection, storage_id=media.id)
        for number, task in enumerate(found):
            heard = task.link is not None and task.link.key in sound_keys
            row = AnnotationRow(
                _kind(chance.choice(_KINDS)) if heard else _box(chance),
                completed_by=ANNOTATORS[number % len(ANNOTATORS)],
                lead_time=round(chance.uniform(3, 40), 1),
            )
            create(connection, task.id, row)
    return len(found)


def change(catalog: Catalog, annotation_ids: Sequence[int]) -> None:
    """Somebody thinks again, and says something else."""
    with catalog.begin() as connection:
        for annotation_id in annotation_ids:
            update(connection, annotation_id, result=_kind("speech"), completed_by=ANNOTATORS[0])


def take_back(catalog: Catalog, annotation_id: int) -> None:
    """Somebody takes an annotation back."""
    with catalog.begin() as connection:
        delete(connection, annotation_id)


def _kind(choice: str) -> str:
    value = {"choices": [choice]}
    return json.dumps(
        [{"from_name": "kind", "to_name": "audio", "type": "choices", "value": value}]
    )


def _box(chance: random.Random) -> str:
    """A box somewhere in a picture, in percent of it."""
    x, y = chance.uniform(0, 60), chance.uniform(0, 60)
    value = {
        "x": round(x, 2),
        "y": round(y, 2),
        "width": round(chance.uniform(10, 100 - x), 2),
        "height": round(chance.uniform(10, 100 - y), 2),
        "rectanglelabels": ["thing"],
    }
    region = {"from_name": "box", "to_name": "image", "type": "rectanglelabels", "value": value}
    return json.dumps([region])

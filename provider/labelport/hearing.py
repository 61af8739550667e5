"""Annotations are made, changed and deleted by what a labeling tool's webhook says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from labelport.catalog import Catalog, events, source_annotations, tasks
from labelport.errors import FormatError, NotFound
from labelport.formats.webhooks import Told, read_event
from labelport.model import EventKind


class Received(NamedTuple):
    """What one delivery did, in annotations; what changed nothing is ignored."""

    created: int = 0
    updated: int = 0
    deleted: int = 0
    ignored: int = 0


def receive(catalog: Catalog, body: bytes, *, may_write: Callable[[int], bool]) -> Received:
    """Do what the webhook's *body* says, all or nothing, with events as any other change has.

    The tool's ids of annotations are remembered, so that a delivery that comes twice changes
    nothing, one that comes late does not undo what is newer, a deletion included, and an update
    whose creation got lost creates. What is not about annotations is ignored.

    A deletion of what is unknown is ignored, and not remembered: it names no task, and so no
    project. Remembered in all that the caller may write to, it could keep out another tool's
    annotation of the same id. Should the creation come late, people see the annotation, and can
    delete it.

    :param may_write: whether the caller may change the annotations of the project of this id

    Raises:
        FormatError: the body is not what a webhook sends.
        NotFound: a task does not exist, or the caller may not change its annotations.
    """
    event = read_event(body)
    if event is None:
        return Received(ignored=1)
    doomed = list(dict.fromkeys(event.deleted))
    with catalog.read() as connection:
        projects = tasks.projects_of(connection, [told.task_id for told in event.saved])
        sources = source_annotations.projects_of(connection, doomed)
    named = {*projects.values(), *(project_id for _, project_id in sources)}
    writable = {project_id for project_id in named if may_write(project_id)}
    _require_tasks(event.saved, projects, writable)
    homes = _homes(sources, writable)
    with catalog.begin() as connection:
        events.lock(connection, {*projects.values(), *homes})
        done = [source_annotations.save(connection, *told) for told in event.saved]
        deleted = sum(
            source_annotations.delete(connection, project_id, source_ids)
            for project_id, source_ids in homes.items()
        )
    created, updated = done.count(EventKind.CREATED), done.count(EventKind.UPDATED)
    return Received(created, updated, deleted, done.count(None) + len(doomed) - deleted)


def _require_tasks(saved: Iterable[Told], projects: Mapping[int, int], writable: set[int]) -> None:
    for told in saved:
        if projects.get(told.task_id) not in writable:
            raise NotFound(
                f"there is no task {told.task_id} in a project that you manage; tasks of a "
                "labeling tool have the ids of ours, or name them in meta as labelport_task"
            )


def _homes(sources: Iterable[tuple[str, int]], writable: set[int]) -> dict[int, list[str]]:
    """What is to be deleted of which project, which the tool does not tell."""
    homes: dict[str, int] = {}
    for source_id, project_id in sources:
        if project_id in writable and homes.setdefault(source_id, project_id) != project_id:
            raise FormatError(
                f"annotation {source_id} is in several projects",
                "Let each labeling tool come as a user of its own, manager of its projects alone",
            )
    doomed: dict[int, list[str]] = defaultdict(list)
    for source_id, project_id in homes.items():
        doomed[project_id].append(source_id)
    return doomed

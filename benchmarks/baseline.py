"""What labeling tools do today: one ORM transaction per task, with its link."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "baseline_tasks"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(index=True)
    data: Mapped[dict[str, str]] = mapped_column(sa.JSON)
    created_at: Mapped[datetime]


class Link(Base):
    __tablename__ = "baseline_links"
    id: Mapped[int] = mapped_column(primary_key=True)
    storage_id: Mapped[int] = mapped_column(index=True)
    task_id: Mapped[int] = mapped_column(sa.ForeignKey("baseline_tasks.id"), unique=True)
    key: Mapped[str] = mapped_column(index=True)


def tasks_per_second(engine: sa.Engine, tasks: int) -> float:
    """Import *tasks* media keys: is there a link? No: task and link in one transaction."""
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    begun = time.perf_counter()
    for number in range(tasks):
        key = f"img/{number:08}.jpg"
        with Session(engine) as session, session.begin():
            known = sa.select(Link.id).where(Link.storage_id == 1, Link.key == key)
            if session.scalar(known) is None:
                task = Task(
                    project_id=1,
                    data={"$undefined$": f"s3://bucket/{key}"},
                    created_at=datetime.now(UTC).replace(tzinfo=None),
                )
                session.add(task)
                session.flush()
                session.add(Link(storage_id=1, task_id=task.id, key=key))
    return tasks / (time.perf_counter() - begun)

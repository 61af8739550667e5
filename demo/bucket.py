"""The buckets of the demonstration: one is filled, and one is for exports."""

from __future__ import annotations

from demo.media import Medium, pictures, sounds
from demo.task_files import task_files
from demo.weed import S3Server

BUCKET = "labelport-demo"
EXPORTS = "labelport-demo-exports"


def fill(server: S3Server) -> int:
    """Make the buckets and put the media and the task files into one; how many objects it holds.

    A file that tells the licences lies among the media, for the storage's filter to leave out.
    """
    seen, heard = list(pictures()), list(sounds())
    client = server.client()
    try:
        client.create_bucket(Bucket=BUCKET)
        client.create_bucket(Bucket=EXPORTS)
        objects = {medium.key: medium.path.read_bytes() for medium in (*seen, *heard)}
        objects |= {file.key: file.body for file in task_files(BUCKET, seen, heard)}
        objects["media/LICENCES.txt"] = _licences([*seen, *heard])
        for key, body in objects.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=body)
    finally:
        client.close()
    return len(objects)


def exported(server: S3Server) -> dict[str, int]:
    """What an independent client finds in the bucket of exports: key and size in bytes."""
    client = server.client()
    try:
        listed = client.list_objects_v2(Bucket=EXPORTS)  # far fewer than a page
    finally:
        client.close()
    return {each["Key"]: each["Size"] for each in listed.get("Contents", ())}


def _licences(media: list[Medium]) -> bytes:
    return "".join(f"{medium.key}: {medium.licence}\n" for medium in media).encode()

"""The bucket of the demonstration, filled."""

from __future__ import annotations

from demo.media import Medium, pictures, sounds
from demo.task_files import task_files
from demo.weed import S3Server

BUCKET = "labelport-demo"


def fill(server: S3Server) -> int:
    """Make the bucket and put the media and the task files into it; how many objects there are.

    A file that tells the licences lies among the media, for the storage's filter to leave out.
    """
    seen, heard = list(pictures()), list(sounds())
    client = server.client()
    try:
        client.create_bucket(Bucket=BUCKET)
        objects = {medium.key: medium.path.read_bytes() for medium in (*seen, *heard)}
        objects |= {file.key: file.body for file in task_files(BUCKET, seen, heard)}
        objects["media/LICENCES.txt"] = _licences([*seen, *heard])
        for key, body in objects.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=body)
    finally:
        client.close()
    return len(objects)


def _licences(media: list[Medium]) -> bytes:
    return "".join(f"{medium.key}: {medium.licence}\n" for medium in media).encode()

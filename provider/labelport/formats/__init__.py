"""Object bytes → task rows: JSON, JSON arrays of any size, JSONL. Pure: no files, no threads.

choosing   which decoder suits an object's first bytes
documents  one JSON object, or something that is no JSON at all
arrays     ``[{…}, {…}, …]``, cut into blocks as it streams by
lines      JSONL, which can be resumed at a byte offset
rows       a row's bytes → TaskRow or Problem
shapes     what keys a row may have, and what they mean
refusing   what a database or a reader would choke on, found and put in words
elements   the exact search for an array's separators
media      an object that is the task itself
"""

from labelport.formats.choosing import RowDecoder, decoder, resume_lines
from labelport.formats.media import media_row
from labelport.formats.rows import Rows

__all__ = ["RowDecoder", "Rows", "decoder", "media_row", "resume_lines"]

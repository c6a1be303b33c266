"""The parts that a message can be made of, in OpenAI's spelling: text, images, audio, files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rubberduck.types.frozen import Frozen


class CacheControl(Frozen):
    """Asks the provider to keep what it has read up to here, so that a later call pays less for it.

    `ttl` is how long; None is the provider's own time. Providers without such marks cache by themselves, or not at all.
    """

    type: Literal["ephemeral"] = "ephemeral"
    ttl: Literal["5m", "1h", "30m"] | None = None


class TextPart(Frozen):
    """A piece of text in a message of several parts."""

    type: Literal["text"] = "text"
    text: str
    cache_control: CacheControl | None = None


class ImageUrl(Frozen):
    """Where an image is: an https URL, or a data: URL that carries it."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Frozen):
    """An image in a message."""

    type: Literal["image_url"] = "image_url"
    image_url: ImageUrl
    cache_control: CacheControl | None = None


class InputAudio(Frozen):
    """A recording: base64 without line breaks, and the format of the file, such as "wav" or "mp3"."""

    data: str
    format: str = Field(min_length=1, max_length=16)


class AudioPart(Frozen):
    """Something to be listened to."""

    type: Literal["input_audio"] = "input_audio"
    input_audio: InputAudio


class FileData(Frozen):
    """A document: by `file_id` as the provider named it, by an https `file_url`, or carried in `file_data`.

    `file_data` is a data: URL, such as "data:application/pdf;base64,...".
    """

    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None

    @model_validator(mode="after")
    def _is_in_one_place(self) -> FileData:
        if sum(place is not None for place in (self.file_id, self.file_data, self.file_url)) != 1:
            raise ValueError("give one of file_id, file_data and file_url")
        return self


class FilePart(Frozen):
    """A document in a message. `title`, `context` and `citations` are what Anthropic can be told of it beside."""

    type: Literal["file"] = "file"
    file: FileData
    title: str | None = None
    context: str | None = None
    citations: bool | None = None
    cache_control: CacheControl | None = None


Part = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]

"""Types that the requests and answers of all conventions share."""

from typing import Annotated, Any

from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict


def _unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"character {error.start} is an unpaired surrogate, which UTF-8 cannot encode") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
"""A string that can be sent back."""


class Request(BaseModel):
    """The body of a request. Unknown fields are refused, because they are usually misspelled, and values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


def answer(content: Any) -> Any:
    """Return the answer of a route as it is: its type describes it, and checking every number against the type would take long."""
    return JSONResponse(content)

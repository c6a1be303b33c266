"""Ask for a value of a Python type, not for text; an answer that does not fit may be mended, once.

The mock's first answer is wrong in one field. With `repair=True` the model is told so, within the same call.
"""

from __future__ import annotations

from decimal import Decimal

from pydantic import BaseModel, Field

from rubberduck import RubberDuck
from rubberduck.errors import OutputInvalid
from rubberduck.structured import read, schema_of


class Line(BaseModel):
    article: str
    pieces: int = Field(ge=1)


class Invoice(BaseModel):
    number: str
    total: Decimal
    lines: list[Line]


WRONG = {"number": "R-17", "total": "42.50", "lines": [{"article": "rubber duck", "pieces": 0}]}
RIGHT = {"number": "R-17", "total": "42.50", "lines": [{"article": "rubber duck", "pieces": 17}]}
CONFIG = {
    "providers": {"mock": {"module": "mock", "responses": [{"json": WRONG}, {"json": RIGHT}, {"json": WRONG}]}},
    "prices": {"mock/any": {"input": 1, "output": 2}},
    "ledger": {"path": ":memory:"},
}
QUESTION = {"model": "any", "messages": [{"role": "user", "content": "What does this invoice say? ..."}]}


def main() -> None:
    with RubberDuck.start(CONFIG) as duck:
        invoice = duck.complete(QUESTION, response_model=Invoice, repair=True)
        print(f"{invoice.number}: {invoice.total} for {invoice.lines[0].pieces} ducks")
        print(f"asked {len(duck.provider('mock').calls)} times; the last word to the model was:")
        print(duck.provider("mock").calls[-1].request.messages[-1].text)

        try:
            duck.complete(QUESTION, response_model=Invoice)
        except OutputInvalid as error:
            print(f"\n{type(error).__name__}: {error.problems}")
            print(f"it was paid for all the same: {error.spent} USD, and said {error.response.text[:20]}...")

        # Who wants the whole response too asks for the schema, and reads the answer himself.
        response = duck.complete(QUESTION | {"response_format": schema_of(dict[str, object])})
        print(f"\n{read(dict[str, object], response)['number']} by {response.provider}, {response.usage.cost} USD")


if __name__ == "__main__":
    main()

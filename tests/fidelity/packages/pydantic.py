from datetime import date
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError


# Annotations are looked up in the module that the class says it is from: __main__.
class Person(BaseModel):
    name: str
    born: date
    score: Annotated[float, Field(ge=0, le=1)] = 0.5
    friends: "list[Person]" = []


person = Person.model_validate_json('{"name": "Ada", "born": "1815-12-10", "friends": [{"name": "Bob", "born": "1816-01-01"}]}')
print(person.born.year, person.friends[0].name, person.model_dump(mode="json")["score"])
try:
    Person(name="Eve", born="never", score=2)
except ValidationError as e:
    print([(problem["loc"], problem["type"]) for problem in e.errors()])
# -> 1815 Bob 0.5
# -> [(('born',), 'date_from_datetime_parsing'), (('score',), 'less_than_equal')]

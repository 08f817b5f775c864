"""One sample of a dataset, whatever form its row had."""

from dataclasses import dataclass

Message = dict[str, str]  # {"role", "content"}


@dataclass(frozen=True)
class Example:
    """One sample: a conversation that ends with the answer to learn, or a plain text. `where` names its row."""

    messages: tuple[Message, ...]
    text: str | None
    where: str

    @property
    def question(self) -> str:
        return self.messages[-2]["content"] if len(self.messages) > 1 else ""

    @property
    def answer(self) -> str:
        return self.messages[-1]["content"] if self.messages else (self.text or "")

    @property
    def subject(self) -> str:
        """What is asked; the text where nothing is."""
        return (self.question or self.answer).strip()

    def before_answer(self, system: bool) -> str:
        """The conversation up to the answer as one text, with its system messages or without; the text where there is none."""
        said = self.messages[:-1] if system else [each for each in self.messages[:-1] if each["role"] != "system"]
        return "\n".join(f"{each['role']}: {each['content'].strip()}" for each in said) or self.subject

"""How questions begin: left alone, a small model asks the same few things again and again."""

from __future__ import annotations

import random

BEGINNINGS = (
    "What is the", "What are some", "What would happen if", "How does", "How do I", "How can I", "How many", "How long",
    "Why is", "Why do", "Why did", "When should I", "Where can I", "Who invented", "Which is better:", "Can you",
    "Could you explain", "Is it possible to", "Is it true that", "Should I", "I want to", "I need", "I would like",
    "I have a", "I am writing", "I'm learning", "My friend", "My computer", "My code", "We are planning", "Explain",
    "Explain step by step", "Describe", "Describe in detail", "Write a", "Write a short story about", "Write a poem",
    "Write an email", "Write a letter to", "Write a review of", "Write a function", "Write a Python function that",
    "Write a program that", "Write a SQL query", "Write a regular expression", "Write a test for", "Write HTML",
    "Implement", "In Python,", "In JavaScript,", "In C++,", "Given a list", "Fix the bug in", "Refactor",
    "What does this code do:", "Give me", "Give an example of", "List", "List ten", "Name three", "Suggest", "Compare",
    "Translate", "Convert", "Calculate", "Solve", "Find the", "Prove that", "If a", "If I have", "A train", "A shop",
    "A rectangle has", "There are", "Plan a", "Design a", "Create a table", "Imagine", "Pretend you are", "Tell me",
    "Tell me a", "Help me", "Summarize", "Rewrite", "Correct the grammar", "Classify", "Rank", "Define", "Outline",
)  # fmt: skip

SUBJECTS = (
    "bread", "bicycles", "whales", "volcanoes", "the Roman Empire", "electric cars", "sleep", "a job interview",
    "photosynthesis", "black holes", "gardening", "chess", "the stock market", "coffee", "dogs", "music theory",
    "the French Revolution", "vaccines", "batteries", "a birthday party", "Japan", "football", "prime numbers",
    "recursion", "linked lists", "a web server", "databases", "encryption", "sorting", "dates and times", "CSV files",
    "a calculator", "strings", "matrices", "probability", "percentages", "triangles", "speed and distance",
    "a small business", "taxes", "a budget", "stress", "running", "headaches", "vegetarian food", "soup", "a cake",
    "a lost key", "a lighthouse", "an old clock", "a dragon", "the sea", "winter", "friendship", "honesty", "time",
    "climate change", "recycling", "bridges", "airplanes", "the moon", "ants", "rivers", "paper", "glass", "money",
    "elections", "languages", "poetry", "painting", "films", "photography", "a museum", "a letter", "school", "memory",
    "learning", "habits", "parents", "a neighbour", "a hotel", "a passport", "maps", "earthquakes", "light", "heat",
)  # fmt: skip

WITH_SUBJECT = (
    "{Subject}", "What is {subject}", "How does {subject}", "Why is {subject}", "Tell me about {subject}",
    "Write a story about {subject}", "Write a paragraph about {subject}", "Write a function about {subject}",
    "Give me five tips about {subject}", "What should I know about {subject}", "Explain {subject} to",
    "I have a question about {subject}:", "A problem about {subject}:", "What is the difference between {subject} and",
)  # fmt: skip

ABOUT_A_TEXT = (
    "Summarize this text:", "Summarize in one sentence:", "What are the main points of this text?",
    "Rewrite this in simpler words:", "Make this shorter:", "Explain this to a child:", "Make a list of this:",
    "Translate this into Spanish:", "Write a title for this text:", "Continue this text:",
    "What questions does this text answer?", "Correct this text:", "Improve this:", "Is this right?",
)  # fmt: skip
"""Instructions about an earlier answer: long questions, whose answers repeat parts of them."""


def beginning(chance: random.Random) -> str:
    """The first words of a question; often none, so that the model chooses them."""
    kind = chance.random()
    if kind < 0.35:
        return ""
    if kind < 0.7:
        return chance.choice(BEGINNINGS)
    subject = chance.choice(SUBJECTS)
    return chance.choice(WITH_SUBJECT).format(subject=subject, Subject=subject[0].upper() + subject[1:])

"""A chat without a screen: session, context window, attachments, figures, and the chats on disk."""

"""Analysis of compiled programs: instructions, communication, and memory."""

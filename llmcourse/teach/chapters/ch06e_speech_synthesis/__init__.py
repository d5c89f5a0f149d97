"""The room of `06e_speech_synthesis`."""

"""The room of `06d_speech_recognition`."""

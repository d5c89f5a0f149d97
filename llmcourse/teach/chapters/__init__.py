"""The rooms: one package a notebook, with its checks, its solutions and helpers of its own."""

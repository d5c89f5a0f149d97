"""What every part needs: arguments checked, files written whole, the machine known."""

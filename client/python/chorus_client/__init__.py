"""Client of the Chorus inference service."""

"""Fun-Audio-Chat: a backbone at 5 Hz, a speech head that makes five codes a frame."""

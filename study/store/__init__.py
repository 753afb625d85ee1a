"""The storage of finished stages and studies, in a folder or a bucket."""

"""What others call: from Python, or for a whole run on this machine without Nextflow."""

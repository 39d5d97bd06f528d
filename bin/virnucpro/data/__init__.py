"""From FASTA files to packed batches, ahead of the GPU and out of its sight."""

from virnucpro.data.collator import VarlenCollator
from virnucpro.data.dataloader_utils import create_async_dataloader, create_in_process_dataloader
from virnucpro.data.sequence_dataset import SequenceDataset

__all__ = ["SequenceDataset", "VarlenCollator", "create_async_dataloader", "create_in_process_dataloader"]

//! Evaluation of language models.

//! Token index, bloom filters, label postings.

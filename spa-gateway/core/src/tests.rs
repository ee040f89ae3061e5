//! Tests in virtual time.

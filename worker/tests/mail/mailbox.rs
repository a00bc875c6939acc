//! Reports read back from a mailbox.

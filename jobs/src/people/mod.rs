//! Businesses (one business is one fiduciary whose data we handle), their staff and tokens.

crate::id_type! {
    /// One business: a Data Fiduciary whose records we keep.
    BusinessId
}

//! Businesses (one business is one fiduciary whose data we handle), their staff and tokens.

mod store;

pub use store::list_handles;

crate::id_type! {
    /// One business: a Data Fiduciary whose records we keep.
    BusinessId
}

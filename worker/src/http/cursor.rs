//! Pages: `?limit=&cursor=`, and `next` to go on.
//!
//! A cursor is where the page before ended, with a MAC (HMAC-SHA-256, whole) over it, the address, the filters and the
//! business of the token: it leads on in the list it comes from and nowhere else. The key is the installation's, drawn
//! from the vault once a process.

use std::{str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequestParts, Query as Parsed},
    http::request::Parts,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use muneem_jobs::vault::{INSTALLATION, IndexColumn};
use serde::Serialize;
use sha2::Sha256;
use tokio::sync::OnceCell;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{
    Api,
    auth::Caller,
    problem::{Problem, ProblemId},
};

const LIMIT_DEFAULT: u16 = 50;
const LIMIT_MAX: u16 = 200;
/// Length of an HMAC-SHA-256.
const MAC_LENGTH: usize = 32;

/// The key of this process's cursors; every process of the installation draws the same.
#[derive(Default)]
pub struct CursorKey(OnceCell<Zeroizing<[u8; 32]>>);

impl CursorKey {
    async fn get(&self, api: &Api) -> Result<&[u8; 32], Problem> {
        let key = self
            .0
            .get_or_try_init(async || {
                let mut db = api.db.acquire().await?;
                let mut key = Zeroizing::new([0; 32]);
                // An index is half an HMAC-SHA-256 under a key that only the vault has: two make a key of 256 bits.
                for (half, column) in key.chunks_mut(16).zip(["cursor_key_1", "cursor_key_2"]) {
                    let column = IndexColumn { business_id: INSTALLATION, table: "muneem.http", column };
                    half.copy_from_slice(&api.vault.index(&mut db, &column, "cursor").await?.digest);
                }
                Ok::<_, Problem>(key)
            })
            .await?;
        Ok(key)
    }
}

/// One page of a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The things, newest first unless said otherwise.
    pub items: Vec<T>,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A list that has one page.
    pub(super) fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

/// The list that is asked for, as an argument of a handler: its address and filters.
pub(super) struct Listing(Vec<u8>);

impl FromRequestParts<Arc<Api>> for Listing {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        let mut filters =
            Parsed::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_or(Vec::new(), |Parsed(all)| all);
        filters.retain(|(name, _)| name != "limit" && name != "cursor");
        filters.sort_unstable();
        let mut bound = Vec::new();
        let of_filters = filters.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        for part in std::iter::once(parts.uri.path()).chain(of_filters) {
            put(&mut bound, part.as_bytes());
        }
        Ok(Self(bound))
    }
}

/// Each part with its length before it, so that no two lists read alike.
fn put(bound: &mut Vec<u8>, part: &[u8]) {
    bound.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
    bound.extend_from_slice(part);
}

impl Listing {
    /// The list as `caller` sees it.
    pub(super) async fn of(self, api: &Api, caller: &Caller) -> Result<Cursors, Problem> {
        let key = api.cursors.get(api).await?;
        Ok(Cursors::new(key, &self, caller.business.map_or([0; 16], |business| business.0.into_bytes())))
    }
}

/// Makes and reads the cursors of one list.
pub(super) struct Cursors(Hmac<Sha256>);

impl Cursors {
    fn new(key: &[u8; 32], listing: &Listing, business: [u8; 16]) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        mac.update(b"muneem cursor 1");
        mac.update(&business);
        mac.update(&u64::try_from(listing.0.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(&listing.0);
        Self(mac)
    }

    /// A page from one item more than `limit` asks for: the surplus one says that there is a next page.
    pub(super) fn page<T>(&self, mut items: Vec<T>, limit: u16, position: impl Fn(&T) -> String) -> Page<T> {
        let more = items.len() > usize::from(limit);
        items.truncate(limit.into());
        let next = items.last().filter(|_| more).map(|last| self.seal(&position(last)));
        Page { items, next }
    }

    fn seal(&self, position: &str) -> String {
        let mac = self.0.clone().chain_update(position).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([mac.as_slice(), position.as_bytes()].concat())
    }

    /// Where the page before ended.
    ///
    /// # Errors
    /// The cursor is not one of this list's.
    pub(super) fn position<P: FromStr>(&self, cursor: Option<&str>) -> Result<Option<P>, Problem> {
        let Some(cursor) = cursor else { return Ok(None) };
        self.open(cursor).map(Some).ok_or_else(|| ProblemId::BadCursor.into())
    }

    fn open<P: FromStr>(&self, cursor: &str) -> Option<P> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (mac, position) = bytes.split_at_checked(MAC_LENGTH)?;
        self.0.clone().chain_update(position).verify_slice(mac).ok()?;
        std::str::from_utf8(position).ok()?.parse().ok()
    }
}

/// Checked `limit`.
pub(super) fn limit(asked: Option<u16>) -> Result<u16, Problem> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(Problem::field(
            ProblemId::BadQuery,
            "limit",
            "is out of range",
            format!("take 1 to {LIMIT_MAX}, or leave it out for {LIMIT_DEFAULT}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(path: &str, filters: &[(&str, &str)], business: u8) -> Cursors {
        let mut bound = Vec::new();
        for part in std::iter::once(path).chain(filters.iter().flat_map(|(name, value)| [*name, *value])) {
            put(&mut bound, part.as_bytes());
        }
        Cursors::new(&[7; 32], &Listing(bound), [business; 16])
    }

    #[test]
    fn a_cursor_leads_on_from_the_last_item() {
        let list = cursors("/v1/queue/jobs", &[], 1);
        let page = list.page(vec![9_i64, 8, 7], 2, ToString::to_string);
        assert_eq!(page.items, [9, 8]);
        assert_eq!(list.position::<i64>(page.next.as_deref()).expect("ours"), Some(8));
        assert!(list.page(vec![9_i64, 8], 2, ToString::to_string).next.is_none());
        assert_eq!(list.position::<i64>(None).expect("the first page"), None);
    }

    #[test]
    fn atk_067_a_cursor_is_good_for_its_own_list_alone() {
        let list = cursors("/v1/queue/jobs", &[("state", "dead")], 1);
        let cursor = list.seal("8");
        assert!(list.position::<i64>(Some(&cursor)).is_ok());
        for (what, other) in [
            ("another address", cursors("/v1/queue/job", &[("s", "state"), ("dead", "")], 1)),
            ("another list", cursors("/v1/messaging/messages", &[("state", "dead")], 1)),
            ("another filter", cursors("/v1/queue/jobs", &[("state", "ready")], 1)),
            ("no filter", cursors("/v1/queue/jobs", &[], 1)),
            ("one filter more", cursors("/v1/queue/jobs", &[("kind", "a"), ("state", "dead")], 1)),
            ("another business", cursors("/v1/queue/jobs", &[("state", "dead")], 2)),
        ] {
            assert!(other.position::<i64>(Some(&cursor)).is_err(), "{what}");
        }
        let bytes = URL_SAFE_NO_PAD.decode(&cursor).expect("base64");
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(list.position::<i64>(Some(&URL_SAFE_NO_PAD.encode(&bent))).is_err(), "byte {at}");
            assert!(list.position::<i64>(Some(&URL_SAFE_NO_PAD.encode(&bytes[..at]))).is_err(), "{at} bytes");
        }
        let longer = [bytes.as_slice(), b"0"].concat();
        assert!(list.position::<i64>(Some(&URL_SAFE_NO_PAD.encode(longer))).is_err());
        for text in ["", "x", "!!", "AAAA", "bm8", "OA"] {
            assert!(list.position::<i64>(Some(text)).is_err(), "{text}");
        }
    }
}

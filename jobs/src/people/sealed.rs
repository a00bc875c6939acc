//! What this duty seals and looks up, for whoever turns keys.

use zeroize::Zeroizing;

use super::enrol::{self, TABLE as STAFF};
use crate::vault::{IndexedColumn, Key, Owner, SealedColumn, Source, Version, as_it_stands};

const APPROVALS: &str = "muneem.people_approvals";
const BUSINESSES: &str = "muneem.people_businesses";
const CREDENTIALS: &str = "muneem.people_credentials";
const GRANTS: &str = "muneem.people_support_grants";
const INVITED: &str = "muneem.people_links";
const LINKS: &str = "muneem.people_oidc_links";
const PROVIDERS: &str = "muneem.people_oidc_providers";

/// What this duty seals.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::of_row(STAFF, "name_sealed", Key::uuid("staff_id")),
    SealedColumn::of_row(STAFF, "phone_sealed", Key::uuid("staff_id")),
    SealedColumn::of_row(STAFF, "email_sealed", Key::uuid("staff_id")),
    SealedColumn::of_row(BUSINESSES, "gstin_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(BUSINESSES, "contact_name_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(BUSINESSES, "contact_phone_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(BUSINESSES, "contact_email_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(BUSINESSES, "mail_from_sealed", Key::uuid("business_id")),
    SealedColumn::of_row(APPROVALS, "summary_sealed", Key::uuid("approval_id")),
    SealedColumn::of_row(INVITED, "contact_sealed", Key::uuid("link_id")),
    SealedColumn::of_row(INVITED, "url_sealed", Key::uuid("link_id")),
    SealedColumn::of_row(INVITED, "code_sealed", Key::uuid("link_id")),
    SealedColumn::of_row(GRANTS, "reason_sealed", Key::uuid("grant_id")),
    SealedColumn::of_row(PROVIDERS, "client_secret_sealed", Key::uuid("provider_id")),
    SealedColumn::of_row(LINKS, "subject_sealed", Key::uuid("link_id")).of_installation(),
    SealedColumn::of_row(CREDENTIALS, "totp_sealed", Key::uuid("staff_id")).of_installation(),
    // It becomes the one above once it has been proved with a code.
    SealedColumn {
        cell_column: "totp_sealed",
        ..SealedColumn::of_row(CREDENTIALS, "totp_pending_sealed", Key::uuid("staff_id")).of_installation()
    },
];

/// What this duty looks up.
pub const INDEXED: &[IndexedColumn] = &[
    IndexedColumn {
        table: STAFF,
        column: "phone_index",
        version: Version::Beside("phone_index_version"),
        purpose: "muneem.people_staff.phone_index",
        key: Key::uuid("staff_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "phone_sealed", value: as_it_stands },
    },
    IndexedColumn {
        table: STAFF,
        column: "email_index",
        version: Version::Beside("email_index_version"),
        purpose: "muneem.people_staff.email_index",
        key: Key::uuid("staff_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "email_sealed", value: as_it_stands },
    },
    IndexedColumn {
        table: BUSINESSES,
        column: "gstin_index",
        version: Version::Beside("gstin_index_version"),
        purpose: "muneem.people_businesses.gstin_index",
        key: Key::uuid("business_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "gstin_sealed", value: as_it_stands },
    },
    IndexedColumn {
        table: BUSINESSES,
        column: "contact_phone_index",
        version: Version::Beside("contact_phone_index_version"),
        purpose: "muneem.people_businesses.contact_phone_index",
        key: Key::uuid("business_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "contact_phone_sealed", value: as_it_stands },
    },
    IndexedColumn {
        table: BUSINESSES,
        column: "contact_email_index",
        version: Version::Beside("contact_email_index_version"),
        purpose: "muneem.people_businesses.contact_email_index",
        key: Key::uuid("business_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "contact_email_sealed", value: as_mail_address },
    },
    // Under the keys of staff, so that a person of staff is recognised behind a link.
    IndexedColumn {
        table: INVITED,
        column: "phone_index",
        version: Version::Beside("phone_index_version"),
        purpose: "muneem.people_staff.phone_index",
        key: Key::uuid("link_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "contact_sealed", value: as_it_stands },
    },
    IndexedColumn {
        table: INVITED,
        column: "email_index",
        version: Version::Beside("email_index_version"),
        purpose: "muneem.people_staff.email_index",
        key: Key::uuid("link_id"),
        owner: Owner::Installation,
        source: Source::Sealed { column: "contact_sealed", value: as_mail_address },
    },
    // Its canonical form names the provider too, which the row's sealed value does not.
    IndexedColumn {
        table: LINKS,
        column: "subject_index",
        version: Version::Beside("subject_index_version"),
        purpose: "muneem.people_oidc_links.subject_index",
        key: Key::uuid("link_id"),
        owner: Owner::Installation,
        source: Source::Gone,
    },
];

/// A mail address is sealed as it was typed, and looked up in its one form.
fn as_mail_address(plain: &[u8]) -> Option<Zeroizing<String>> {
    enrol::canonical_email(std::str::from_utf8(plain).ok()?).ok().map(Zeroizing::new)
}

use crate::{
    files, invoice, messaging, people, queue,
    vault::{IndexedColumn, SealedColumn},
    webhooks,
};

/// What each duty offers: `SEALED` and `INDEXED` of its `mod.rs`.
const SEALED: &[&[SealedColumn]] =
    &[files::SEALED, invoice::SEALED, messaging::SEALED, people::SEALED, queue::SEALED, webhooks::SEALED];
const INDEXED: &[&[IndexedColumn]] = &[invoice::INDEXED, messaging::INDEXED, people::INDEXED];

/// Every column of ours that holds sealed values: the one list of them. What is missing here is not sealed anew when a
/// key changes; a test holds it against the schema.
pub fn sealed_columns() -> Vec<SealedColumn> {
    SEALED.concat()
}

/// Every column of ours that holds blind indexes.
pub fn indexed_columns() -> Vec<IndexedColumn> {
    INDEXED.concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use muneem_postgres::testing::TestDb;

    use super::*;
    use crate::vault::{Source, Version};

    /// Bytes that are neither sealed nor blind indexes of the vault, each with what it is.
    const OTHER_BYTES: &[(&str, &str)] = &[
        ("evidence_anchors.proof", "an anchor's receipt"),
        ("evidence_checkpoints.root", "a tree head"),
        ("evidence_counters.leaf", "a digest"),
        ("evidence_events.body", "free of personal values, by its screen"),
        ("evidence_leaves.body_sha256", "a digest"),
        ("evidence_leaves.leaf", "a digest"),
        ("evidence_leaves.previous", "a digest"),
        ("evidence_nodes.hash", "a digest"),
        ("messaging_consents.proof_sha256", "a digest, salted with the row's id"),
        ("messaging_otp_limits.key", "a blind index or a digest that lives for hours"),
        ("messaging_mail_identities.code_sha256", "a digest of chance"),
        ("messaging_mail_reports.sha256", "a digest"),
        ("messaging_mail_tokens.leave_sha256", "a digest of chance"),
        ("messaging_mail_tokens.recipient_mark", "a digest under chance that is kept nowhere"),
        ("messaging_mail_tokens.token_sha256", "a digest of chance"),
        ("messaging_webhooks.sha256", "a digest"),
        (
            "people_approval_contacts.contact_index",
            "copies of blind indexes, compared with each other alone while a decision is open; a trigger adds the new one",
        ),
        ("people_approval_votes.plan_sha256", "a digest"),
        ("people_approvals.plan_sha256", "a digest"),
        ("people_devices.device_sha256", "a digest of chance"),
        ("people_idempotency_keys.answer_sealed", "sealed, and gone after a day: keys outlive that"),
        ("people_idempotency_keys.key_sha256", "a digest"),
        ("people_idempotency_keys.request_sha256", "a digest"),
        ("people_invitations.token_sha256", "a digest of chance"),
        ("people_links.code_sha256", "a digest under a secret of the link"),
        ("people_links.proof_sha256", "a digest of chance"),
        ("people_links.secret_sha256", "a digest of chance"),
        ("people_oidc_flows.binding_sha256", "a digest of chance"),
        ("people_oidc_flows.state_sha256", "a digest of chance"),
        ("people_passkeys.credential_id", "chance, made by an authenticator"),
        ("people_recovery_codes.code_sha256", "a digest of chance"),
        ("people_sessions.device_sha256", "a digest of chance"),
        ("people_sessions.token_sha256", "a digest of chance"),
        ("people_sign_in_codes.code_sha256", "a digest under a secret of the browser"),
        ("people_sign_in_failures.account", "a blind index that lives for hours"),
        ("people_sign_in_failures.place", "a blind index that lives for hours"),
        ("people_staff.phone_proved_on", "a digest of chance"),
        ("people_tokens.secret_sha256", "a digest of chance"),
        ("vault_keys.wrapped", "a key, wrapped"),
        ("vault_subject_keys.wrapped", "a key, wrapped"),
    ];

    #[tokio::test]
    async fn every_column_of_bytes_is_known_to_be_sealed_indexed_or_neither() {
        let db = TestDb::new(&crate::MIGRATOR).await;
        let in_schema: BTreeSet<String> = sqlx::query_scalar(
            "select c.relname || '.' || a.attname
            from pg_class c
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            where c.relnamespace = 'muneem'::regnamespace
                and c.relkind in ('r', 'p')
                and not c.relispartition
                and c.relname <> '_sqlx_migrations'
                and (a.atttypid = 'bytea'::regtype or a.attname ~ '_sealed$')",
        )
        .fetch_all(&db.pool())
        .await
        .expect("columns")
        .into_iter()
        .collect();
        let ours = |table: &str, column: &str| format!("{}.{column}", table.trim_start_matches("muneem."));
        let mut known: BTreeSet<String> = OTHER_BYTES.iter().map(|(name, _)| (*name).to_owned()).collect();
        known.extend(sealed_columns().iter().map(|sealed| ours(sealed.table, sealed.column)));
        known.extend(indexed_columns().iter().map(|indexed| ours(indexed.table, indexed.column)));
        assert_eq!(in_schema, known, "list it in its duty's SEALED or INDEXED, or say here what else it is");
    }

    #[tokio::test]
    async fn every_listed_column_can_be_walked_by_the_app_role() {
        let db = TestDb::new(&crate::MIGRATOR).await;
        let mut walked: Vec<(&str, &str, &str, &str)> = Vec::new();
        for sealed in sealed_columns() {
            walked.push((sealed.table, sealed.column, sealed.key.column, sealed.key.kind));
        }
        for indexed in indexed_columns() {
            let Source::Sealed { column, .. } = indexed.source else { continue };
            assert!(
                sealed_columns().iter().any(|sealed| (sealed.table, sealed.column) == (indexed.table, column)),
                "{}.{} is made from a column that is not listed",
                indexed.table,
                indexed.column
            );
            walked.push((indexed.table, indexed.column, indexed.key.column, indexed.key.kind));
            if let Version::Beside(version) = indexed.version {
                walked.push((indexed.table, version, indexed.key.column, indexed.key.kind));
            }
        }
        for (table, column, key, kind) in walked {
            let may: bool = sqlx::query_scalar(
                "select has_column_privilege('muneem_app', $1, $2, 'select')
                    and has_column_privilege('muneem_app', $1, $2, 'update')
                    and (select format_type(a.atttypid, null) = $4 and i.indkey[0] = a.attnum and i.indnkeyatts = 1
                        from pg_index i
                        join pg_attribute a on a.attrelid = i.indrelid and a.attname = $3
                        where i.indrelid = $1::regclass and i.indisprimary)",
            )
            .bind(table)
            .bind(column)
            .bind(key)
            .bind(kind)
            .fetch_one(&db.pool())
            .await
            .expect("asked");
            assert!(may, "{table}.{column}: grant select and update to muneem_app; its key is {key} {kind}");
        }
    }
}

//! The wall between businesses holds without the filters of the program.

use chrono::{DateTime, Utc};
use muneem_postgres::testing::TestDb;
use sqlx::{Connection, PgConnection};

use super::{BusinessId, add_business, enter_business, is_nobodys};
use crate::outbound::{Chance, Clock};

struct Noon;

impl Clock for Noon {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_500_000, 0).expect("a real instant")
    }
}

struct Counting(std::sync::atomic::AtomicU8);

impl Chance for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    }
}

async fn two_shops(db: &mut PgConnection) -> [BusinessId; 2] {
    let chance = Counting(1.into());
    let sharma = add_business(db, "sharma-mobiles", "Sharma", &Noon, &chance).await.expect("made");
    let verma = add_business(db, "verma-phones", "Verma", &Noon, &chance).await.expect("made");
    [sharma.business_id, verma.business_id]
}

async fn handles(db: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar("select handle from muneem.people_businesses order by handle")
        .fetch_all(db)
        .await
        .expect("asked without a filter")
}

#[tokio::test]
async fn atk_060_behind_the_wall_there_is_one_business_and_after_it_none_is_left_at_hand() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let [sharma, verma] = two_shops(&mut db).await;

    let mut tx = db.begin().await.expect("begun");
    enter_business(&mut tx, sharma).await.expect("entered");
    assert_eq!(handles(&mut tx).await, ["sharma-mobiles"]);
    assert!(!is_nobodys(&mut tx).await.expect("asked"));
    let others = sqlx::query("update muneem.people_businesses set legal_name = 'Mine' where business_id = $1")
        .bind(verma.0)
        .execute(&mut *tx)
        .await
        .expect("asked");
    assert_eq!(others.rows_affected(), 0, "a row of another business does not exist");
    let named = sqlx::query("select muneem.people_resolve_business('verma-phones')").execute(&mut *tx).await;
    let refused = named.expect_err("definer's functions mean no other business either");
    assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("MN003"));
    drop(tx);

    assert!(is_nobodys(&mut db).await.expect("asked"), "it ended with the transaction");
    assert_eq!(handles(&mut db).await, ["sharma-mobiles", "verma-phones"]);

    let mut tx = db.begin().await.expect("begun");
    enter_business(&mut tx, sharma).await.expect("entered");
    let planted = sqlx::query(
        "insert into muneem.invoice_refusals (refusal_id, business_id, payload_sealed, problems, refused_at)
         values (gen_random_uuid(), $1, '\\x00', '[]', now())",
    )
    .bind(verma.0)
    .execute(&mut *tx)
    .await;
    let refused = planted.expect_err("nothing is written for another business");
    assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"));
}

#[tokio::test]
async fn atk_060_the_role_of_one_business_sees_nothing_until_a_business_is_named() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    two_shops(&mut db).await;
    let mut tx = db.begin().await.expect("begun");
    sqlx::query("set local role muneem_business").execute(&mut *tx).await.expect("the app role may");
    assert_eq!(handles(&mut tx).await, Vec::<String>::new());
    let hidden = sqlx::query("select 1 from muneem.people_sessions").execute(&mut *tx).await;
    assert!(hidden.is_err(), "what no request of one business reads is not open to it");
}

#[tokio::test]
async fn every_table_of_a_business_stands_behind_the_wall() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut owner = test.pool().acquire().await.expect("a connection");
    super::build_wall(&mut owner).await.expect("as migrate does after its last step");
    super::build_wall(&mut owner).await.expect("again is no change");
    let outside: Vec<String> = sqlx::query_scalar(
        "select c.relname::text
         from pg_class c
         join pg_attribute a on a.attrelid = c.oid and a.attname = 'business_id' and not a.attisdropped
         where c.relnamespace = 'muneem'::regnamespace
             and c.relkind in ('r', 'p')
             and not c.relispartition
             and not (c.relrowsecurity and exists (
                 select from pg_policy p where p.polrelid = c.oid and p.polname = 'own_business'))
             and c.relname !~ '^evidence_'
         order by 1",
    )
    .fetch_all(&mut *owner)
    .await
    .expect("listed");
    assert_eq!(outside, ["people_logins", "vault_keys"], "people_build_wall says why these two");
}

#[tokio::test]
async fn rows_that_belong_through_another_table_stand_behind_the_wall_too() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let [sharma, verma] = two_shops(&mut db).await;
    sqlx::query(
        "with made as (
             insert into muneem.people_staff
                 (staff_id, business_id, name_sealed, phone_sealed, phone_index, phone_index_version, created_at)
             select gen_random_uuid(), b.business_id, '\\x00', '\\x00', uuid_send(b.business_id), 1, now()
             from muneem.people_businesses b
             returning staff_id)
         insert into muneem.people_staff_roles (staff_id, role, granted_at, granted_by)
         select staff_id, 'owner', now(), 'operator' from made",
    )
    .execute(&mut *db)
    .await
    .expect("one owner each");
    for business in [sharma, verma] {
        let mut tx = db.begin().await.expect("begun");
        enter_business(&mut tx, business).await.expect("entered");
        let seen: Vec<uuid::Uuid> = sqlx::query_scalar(
            "select s.business_id from muneem.people_staff_roles r left join muneem.people_staff s using (staff_id)",
        )
        .fetch_all(&mut *tx)
        .await
        .expect("asked without a filter");
        assert_eq!(seen, [business.0]);
        let taken = sqlx::query("delete from muneem.people_staff_roles").execute(&mut *tx).await.expect("asked");
        assert_eq!(taken.rows_affected(), 1, "nobody takes a role of another business");
    }
    let open: Vec<String> = sqlx::query_scalar(
        "select c.relname::text
         from pg_class c
         where c.relnamespace = 'muneem'::regnamespace
             and c.relkind in ('r', 'p')
             and not c.relispartition
             and not c.relrowsecurity
             and c.relname !~ '^(evidence_|vault_|law_|queue_kind|queue_workers$)'
             and has_any_column_privilege('muneem_business', c.oid, 'select')
         order by 1",
    )
    .fetch_all(&test.pool())
    .await
    .expect("listed");
    assert_eq!(open, ["queue_slots"], "none of them says whose its rows are");
}

#[tokio::test]
async fn what_signs_people_in_is_not_open_behind_the_wall() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut owner = test.pool().acquire().await.expect("a connection");
    super::build_wall(&mut owner).await.expect("as migrate does after its last step");
    let open: Vec<String> = sqlx::query_scalar(
        "select c.relname::text
         from pg_class c
         where c.relnamespace = 'muneem'::regnamespace
             and c.relkind in ('r', 'p')
             and c.relname ~ '^people_'
             and has_any_column_privilege('muneem_business', c.oid, 'select, insert, update')
         order by 1",
    )
    .fetch_all(&mut *owner)
    .await
    .expect("listed");
    assert_eq!(
        open,
        [
            "people_approval_contacts",
            "people_approval_votes",
            "people_approvals",
            "people_businesses",
            "people_idempotency_keys",
            "people_links",
            "people_staff",
            "people_staff_roles",
            "people_support_grants",
            "people_tokens"
        ],
        "a new table of people is one of these or stands in people_build_wall's list"
    );
}

#[tokio::test]
async fn behind_the_wall_what_runs_as_its_owner_asks_for_the_business() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut owner = test.pool().acquire().await.expect("a connection");
    super::build_wall(&mut owner).await.expect("as migrate does after its last step");
    let callable: Vec<String> = sqlx::query_scalar(
        "select distinct p.proname::text
         from pg_proc p
         where p.pronamespace = 'muneem'::regnamespace
             and p.prosecdef
             and has_function_privilege('muneem_business', p.oid, 'execute')
         order by 1",
    )
    .fetch_all(&mut *owner)
    .await
    .expect("listed");
    let asking = ["cancel_job", "enqueue", "enqueue_many", "invoice_next_number", "people_resolve_business"];
    assert_eq!(callable, asking);
    let proofs: Vec<String> = sqlx::query_scalar(
        "select c.relname::text || ' ' || p
         from pg_class c
         cross join unnest(array['select', 'insert', 'update']) p
         where c.relnamespace = 'muneem'::regnamespace
             and c.relname ~ '^(evidence|vault)_'
             and c.relkind in ('r', 'p')
             and not c.relispartition
             and has_any_column_privilege('muneem_business', c.oid, p)
         order by 1",
    )
    .fetch_all(&mut *owner)
    .await
    .expect("listed");
    assert_eq!(
        proofs,
        [
            "evidence_events insert",
            "vault_columns select",
            "vault_keys select",
            "vault_quarantine select",
            "vault_reseal_columns select",
            "vault_reseals select",
            "vault_shreds select",
            "vault_standing select",
            "vault_strays select",
            "vault_subject_keys select"
        ]
    );
}

#[tokio::test]
async fn atk_059_a_job_of_another_business_is_not_cancelled_behind_the_wall() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    crate::schema::migrate(&mut test.pool().acquire().await.expect("a connection")).await.expect("kinds are known");
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let [sharma, verma] = two_shops(&mut db).await;
    let job: i64 = sqlx::query_scalar(
        "select muneem.queue_enqueue('queue.forget_finished', '{\"keep_days\": 1}', $1, null, now(), null, null)",
    )
    .bind(verma.0)
    .fetch_one(&mut *db)
    .await
    .expect("enqueued");
    for (business, cancelled) in [(sharma, false), (verma, true)] {
        let mut tx = db.begin().await.expect("begun");
        enter_business(&mut tx, business).await.expect("entered");
        let answer: bool =
            sqlx::query_scalar("select muneem.cancel_job($1)").bind(job).fetch_one(&mut *tx).await.expect("asked");
        assert_eq!(answer, cancelled);
    }
}

/// What runs as its owner passes through row-level security: it must find nothing but what it names in full, and be
/// called by nobody who was not given it.
#[tokio::test]
async fn atk_060_functions_of_the_owner_look_nowhere_else_and_are_open_to_nobody_else() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let loose: Vec<String> = sqlx::query_scalar(
        "select p.proname::text
         from pg_proc p
         where p.pronamespace = 'muneem'::regnamespace
             and (p.prosecdef and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, pg_temp']
                 or exists (
                     select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x where x.grantee = 0))
         order by 1",
    )
    .fetch_all(&test.pool())
    .await
    .expect("listed");
    assert_eq!(loose, Vec::<String>::new(), "pin search_path, and revoke from public");
    let makers: Vec<String> = sqlx::query_scalar(
        "select r.rolname::text from pg_roles r
         where r.rolname ~ '^muneem_' and r.rolname !~ '^muneem_test'
             and has_schema_privilege(r.oid, 'muneem', 'create') and not r.rolsuper",
    )
    .fetch_all(&test.pool())
    .await
    .expect("listed");
    assert_eq!(makers, ["muneem_evidence_owner"], "whoever may create here puts something in the way of a name");
}

/// A request of one business finds no answer that was given to another's token.
#[tokio::test]
async fn atk_060_remembered_answers_of_another_business_do_not_exist_behind_the_wall() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut db = test.app_pool().acquire().await.expect("a connection");
    let [sharma, verma] = two_shops(&mut db).await;
    for (number, business) in [(1_u8, sharma), (2, verma)] {
        sqlx::query(
            "with token as (
                 insert into muneem.people_tokens (public_id, secret_sha256, label, business_id, scopes, created_at)
                 values (repeat($1::text, 16), decode(repeat('0' || $1::text, 32), 'hex'), 'till', $2, '{queue:read}', now())
                 returning public_id)
             insert into muneem.people_idempotency_keys (token_id, key_sha256, request_sha256, status, answer, created_at)
             select public_id, '\\x00', '\\x00', 201, $1::text, now() from token",
        )
        .bind(number.to_string())
        .bind(business.0)
        .execute(&mut *db)
        .await
        .expect("answered");
    }
    for (number, business) in [("1", sharma), ("2", verma)] {
        let mut tx = db.begin().await.expect("begun");
        enter_business(&mut tx, business).await.expect("entered");
        let seen: Vec<String> = sqlx::query_scalar("select token_id from muneem.people_idempotency_keys")
            .fetch_all(&mut *tx)
            .await
            .expect("asked without a filter");
        assert_eq!(seen, [number.repeat(16)]);
    }
}

#[tokio::test]
async fn atk_059_a_handler_reads_its_own_business_alone_and_writes_nothing_while_it_reads() {
    let house = super::testing::House::new().await;
    let own = house.stranger(1, Some(house.shop), &[]).await;
    let foreign = house.stranger(2, Some(house.other), &[]).await;
    let mut tx = house.context(house.shop).begin_to_read().await.expect("begun");
    let seen: Vec<uuid::Uuid> = sqlx::query_scalar("select staff_id from muneem.people_staff where staff_id = any($1)")
        .bind([own.staff_id.0, foreign.staff_id.0])
        .fetch_all(&mut *tx)
        .await
        .expect("read");
    assert_eq!(seen, [own.staff_id.0]);
    let written = sqlx::query("update muneem.people_staff set language = 'hi'").execute(&mut *tx).await;
    let code =
        written.expect_err("refused").as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
    assert_eq!(code.as_deref(), Some("25006"), "read only");
    drop(tx);
    // The connection goes back as nobody's.
    let mut db = house.pool.acquire().await.expect("a connection");
    assert!(is_nobodys(&mut db).await.expect("asked"));
}

#[tokio::test]
async fn what_the_wall_leaves_out_is_a_row_that_the_owner_alone_writes() {
    let test = TestDb::new(&crate::MIGRATOR).await;
    let mut owner = test.pool().acquire().await.expect("a connection");
    let open = async |owner: &mut PgConnection| {
        super::build_wall(&mut *owner).await.expect("as migrate does after its last step");
        sqlx::query_scalar::<_, bool>("select has_table_privilege('muneem_business', 'muneem.people_notes', 'select')")
            .fetch_one(&mut *owner)
            .await
            .expect("asked")
    };
    for statement in
        ["create table muneem.people_notes (note_id uuid)", "grant select on muneem.people_notes to muneem_app"]
    {
        sqlx::query(statement).execute(&mut *owner).await.expect("a later step");
    }
    assert!(open(&mut owner).await, "what no row leaves out is open, as any table without a business");
    sqlx::query(
        "insert into muneem.people_wall_exceptions values ('house_only', 'people_notes', 'notes of the house')",
    )
    .execute(&mut *owner)
    .await
    .expect("the owner may");
    assert!(!open(&mut owner).await, "and what was given before is taken back");
    let unknown = "insert into muneem.people_wall_exceptions values ('anything', 'people_notes', 'no such word')";
    assert!(sqlx::query(unknown).execute(&mut *owner).await.is_err());

    let rights: Vec<String> = sqlx::query_scalar(
        "select r.rolname || ' ' || c.relname || ' ' || p.privilege
         from pg_roles r
         cross join pg_class c
         cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate']) p (privilege)
         where r.rolname in ('muneem_app', 'muneem_business', 'muneem_auditor', 'muneem_enqueuer', 'muneem_sealer')
             and c.oid in ('muneem.people_wall_exceptions'::regclass, 'muneem.people_wall_children'::regclass)
             and has_table_privilege(r.oid, c.oid, p.privilege)",
    )
    .fetch_all(&mut *owner)
    .await
    .expect("listed");
    assert_eq!(rights, Vec::<String>::new());
}

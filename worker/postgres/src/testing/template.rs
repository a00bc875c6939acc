//! A migrated database that tests' databases are copied from, one per content of the migrations.

use sha2::{Digest, Sha256};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::APP_LOGIN;
use super::shared::Shared;
use crate::cluster::OWNER;
use crate::server::connect_options;

/// Any number that stands for "making a template", the same in every process.
const LOCK: i64 = 0x006d_756e_6565_6d00;

/// The name of the template for these migrations, made now if nobody has made it yet.
pub(super) async fn prepared(shared: &Shared, admin: &mut PgConnection, migrator: &Migrator) -> String {
    let name = format!("template_{}", digest(migrator));
    if exists(admin, &name).await {
        return name;
    }
    // The lock belongs to the connection: it ends with the process that makes the template, however that ends.
    run(admin, &format!("select pg_advisory_lock({LOCK})")).await;
    if !exists(admin, &name).await {
        make(shared, admin, migrator, &name).await;
    }
    run(admin, &format!("select pg_advisory_unlock({LOCK})")).await;
    name
}

/// Migrates under another name and renames at the end: what has the name is complete.
async fn make(shared: &Shared, admin: &mut PgConnection, migrator: &Migrator, name: &str) {
    let draft = format!("{name}_draft");
    run(admin, &format!("drop database if exists {draft} with (force)")).await;
    run(admin, &format!("create database {draft} template template0")).await;
    let options = connect_options(shared.socket_dir(), OWNER, &draft);
    let mut owner = PgConnection::connect_with(&options).await.unwrap_or_else(|error| panic!("{draft}: {error}"));
    migrator.run(&mut owner).await.unwrap_or_else(|error| panic!("migrations: {error}"));
    run(
        &mut owner,
        &format!(
            "do $$
        begin
            if exists (select from pg_roles where rolname = 'muneem_app') then
                if not exists (select from pg_roles where rolname = '{APP_LOGIN}') then
                    create role {APP_LOGIN} login;
                end if;
                grant muneem_app to {APP_LOGIN};
            end if;
        end
        $$"
        ),
    )
    .await;
    owner.close().await.unwrap_or_else(|error| panic!("{draft}: {error}"));
    run(admin, &format!("alter database {draft} rename to {name}")).await;
}

async fn exists(admin: &mut PgConnection, name: &str) -> bool {
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(admin)
        .await
        .unwrap_or_else(|error| panic!("cannot look for {name}: {error}"))
}

async fn run(connection: &mut PgConnection, statement: &str) {
    if let Err(error) = connection.execute(AssertSqlSafe(statement)).await {
        panic!("{statement}: {error}");
    }
}

/// Everything that decides what the migrated database looks like.
fn digest(migrator: &Migrator) -> String {
    let mut digest = Sha256::new();
    digest.update(migrator.table_name.as_bytes());
    for schema in migrator.create_schemas.iter() {
        digest.update(schema.as_bytes());
    }
    for migration in migrator.iter() {
        digest.update(migration.version.to_be_bytes());
        digest.update(&migration.checksum);
    }
    hex::encode(&digest.finalize()[..8])
}

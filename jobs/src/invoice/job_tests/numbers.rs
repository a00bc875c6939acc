//! Serial numbers without gaps.

use super::*;

async fn next_number(conn: &mut PgConnection, series: &str) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("select muneem.invoice_next_number('sharma-mobiles', $1)").bind(series).fetch_one(conn).await
}

#[tokio::test]
async fn numbers_have_no_gaps_in_parallel_and_after_rollbacks() {
    let shop = Shop::open().await;
    let mut tasks = Vec::new();
    for task in 0..4_u32 {
        let pool = shop.db.pool();
        tasks.push(tokio::spawn(async move {
            let mut kept = Vec::new();
            for round in 0..15_u32 {
                let mut tx = pool.begin().await.expect("a transaction");
                let number = next_number(&mut tx, "sm").await.expect("a number");
                if (task + round) % 3 == 0 {
                    tx.rollback().await.expect("a rollback");
                } else {
                    tx.commit().await.expect("a commit");
                    kept.push(number);
                }
            }
            kept
        }));
    }
    let mut numbers = Vec::new();
    for task in tasks {
        numbers.extend(task.await.expect("a task"));
    }
    numbers.sort();
    let year = crate::law::FinancialYear::of(
        sqlx::query_scalar("select (muneem.now() at time zone 'Asia/Kolkata')::date")
            .fetch_one(&mut *shop.conn().await)
            .await
            .expect("a day"),
    );
    let short = year.to_string()[2..].to_owned();
    let expected: Vec<_> = (1..=40).map(|n| format!("SM/{short}/{n:05}")).collect();
    assert_eq!(numbers, expected);
}

#[tokio::test]
async fn an_enqueuer_takes_numbers_and_sees_no_table() {
    let shop = Shop::open().await;
    let mut tx = shop.db.pool().begin().await.expect("a transaction");
    sqlx::query("set local role muneem_enqueuer").execute(&mut *tx).await.expect("a role");
    assert!(next_number(&mut tx, "SM").await.expect("a number").ends_with("/00001"));
    for table in ["invoice_series", "invoice_invoices", "invoice_refusals", "files_objects"] {
        let mut savepoint = sqlx::Acquire::begin(&mut tx).await.expect("a savepoint");
        let query = sqlx::AssertSqlSafe(format!("select count(*) from muneem.{table}"));
        let error = sqlx::query_scalar::<_, i64>(query).fetch_one(&mut *savepoint).await.expect_err("refused");
        assert!(error.to_string().contains("permission denied"), "{table}: {error}");
        savepoint.rollback().await.expect("a rollback");
    }
}

#[tokio::test]
async fn numbers_stay_within_sixteen_characters_or_say_why() {
    let shop = Shop::open().await;
    let mut conn = shop.conn().await;
    for series in ["A", "SM", "DELHI1"] {
        let number = next_number(&mut conn, series).await.expect("a number");
        assert_eq!(crate::invoice::numbers::check_serial(&number, true), Ok(()), "{number}");
    }
    sqlx::query("update muneem.invoice_series set last_number = 999 where series = 'DELHI1'")
        .execute(&mut *conn)
        .await
        .expect("an update");
    for (series, expected) in [
        ("DELHI1", "no number left"),
        ("DELHI-1", "1 to 6 letters"),
        ("", "1 to 6 letters"),
        ("S/M", "1 to 6 letters"),
        ("0A", "starts with 0"),
    ] {
        let error = next_number(&mut conn, series).await.expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
        let database = error.into_database_error().expect("the database's");
        let hint = database.downcast_ref::<sqlx::postgres::PgDatabaseError>().hint().unwrap_or_default().to_owned();
        assert!(!hint.is_empty());
    }
    let error = sqlx::query_scalar::<_, String>("select muneem.invoice_next_number(null, 'SM')")
        .fetch_one(&mut *conn)
        .await
        .expect_err("two businesses");
    assert!(error.to_string().contains("business"), "{error}");
}

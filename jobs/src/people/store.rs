use sqlx::PgConnection;

/// Handles of all businesses, the oldest first.
pub async fn list_handles(conn: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!("select handle from muneem.people_businesses order by created_at, business_id")
        .fetch_all(conn)
        .await
}

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

/// Handle of the shop's business.
pub(super) const BUSINESS: &str = "sharma-mobiles";
/// The login that the shop's checkout works as: its own tables, and `muneem.enqueue`.
pub(super) const LOGIN: &str = "shop_frontend";
/// Rupees before tax from which an invoice names the buyer's address (CGST Rules r.46(e)).
const ADDRESS_FROM: u32 = 50_000;
/// Series of its invoice numbers.
const SERIES: &str = "SM";

/// Makes schema `shop` and fills it. As the owner, after the migrations.
pub(super) async fn open(owner: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(include_str!("shop.sql")).execute(owner).await?;
    Ok(())
}

/// What a customer takes to the counter.
#[derive(Clone)]
pub(super) struct Cart {
    pub(super) name: String,
    /// E.164.
    pub(super) phone: String,
    /// `en` or `hi`.
    pub(super) language: String,
    /// GST code of the customer's State.
    pub(super) state_code: String,
    /// House and street.
    pub(super) street: Option<String>,
    pub(super) city: Option<String>,
    pub(super) pin: Option<String>,
    /// What, and how many of it.
    pub(super) items: Vec<(i32, i32)>,
    /// `upi`, `card` or `cash`.
    pub(super) method: String,
}

/// A sale that is committed, together with the job that bills it.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Sold {
    pub(super) order: i64,
    pub(super) invoice_number: String,
    pub(super) job: i64,
    pub(super) total: Decimal,
    pub(super) placed_at: DateTime<Utc>,
}

/// Why nothing was sold. For the customer's eyes.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSold {
    #[error("there is no product {0}")]
    NoSuchProduct(i32),
    #[error("{0} is sold out")]
    SoldOut(String),
    #[error("{field}: {mend}")]
    Field { field: &'static str, mend: &'static str },
    #[error("the shop's database did not take the order: {0}")]
    Database(#[from] sqlx::Error),
}

impl Cart {
    fn check(&self) -> Result<(), NotSold> {
        let field = |field, mend| Err(NotSold::Field { field, mend });
        let digits = self.phone.strip_prefix('+').unwrap_or_default();
        if !(8..=15).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return field("phone", "write it with the country, such as +917000000001");
        }
        if self.name.trim().is_empty() || self.name.chars().count() > 80 {
            return field("name", "write a name of at most 80 letters");
        }
        if self.state_code.len() != 2 || !self.state_code.bytes().all(|byte| byte.is_ascii_digit()) {
            return field("state", "take the two digits of the GST State code, such as 27");
        }
        if self.items.is_empty() || self.items.iter().any(|(_, quantity)| !(1..=20).contains(quantity)) {
            return field("product", "take at least one thing, and at most 20 of each");
        }
        Ok(())
    }
}

/// The checkout, as any frontend in any language would do it: order, payment, invoice number and the job in ONE
/// transaction of the frontend's own login.
pub(super) async fn sell(frontend: &PgPool, cart: &Cart) -> Result<Sold, NotSold> {
    cart.check()?;
    let mut tx = frontend.begin().await?;
    let (customer, home) = remember(&mut tx, cart).await?;
    let lines = price(&mut tx, cart).await?;
    let total: Decimal = lines.iter().map(|line| line.price * Decimal::from(line.quantity)).sum();
    if before_tax(total) >= Decimal::from(ADDRESS_FROM) && home.city.is_none() {
        let mend = "say street, city and pin: an invoice of so much must name them";
        return Err(NotSold::Field { field: "address", mend });
    }
    let (order, placed_at, today): (i64, DateTime<Utc>, NaiveDate) = sqlx::query_as(
        "insert into shop.orders (customer_id, placed_at, total)
         values ($1, muneem.now(), $2)
         returning order_id, placed_at, (placed_at at time zone 'Asia/Kolkata')::date",
    )
    .bind(customer)
    .bind(total)
    .fetch_one(&mut *tx)
    .await?;
    let mut billed = Vec::with_capacity(lines.len());
    for line in &lines {
        billed.push(hand_over(&mut tx, order, line).await?);
    }
    sqlx::query("insert into shop.payments (order_id, method, amount) values ($1, $2, $3)")
        .bind(order)
        .bind(&cart.method)
        .bind(total)
        .execute(&mut *tx)
        .await?;
    // Asked for last: the series is held until this transaction ends.
    let number: String = sqlx::query_scalar("select muneem.invoice_next_number($1, $2)")
        .bind(BUSINESS)
        .bind(SERIES)
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query("update shop.orders set invoice_number = $2 where order_id = $1")
        .bind(order)
        .bind(&number)
        .execute(&mut *tx)
        .await?;
    let job: i64 = sqlx::query_scalar("select muneem.enqueue('invoice.issue', $1, business => $2, key => $3)")
        .bind(document(cart, &home, &Head { number: &number, issued_on: today, total }, &billed))
        .bind(BUSINESS)
        .bind(format!("order-{order}"))
        .fetch_one(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Sold { order, invoice_number: number, job, total, placed_at })
}

/// Where a customer lives, as far as she has said.
#[derive(sqlx::FromRow)]
struct Home {
    street: Option<String>,
    city: Option<String>,
    pin: Option<String>,
    state_code: String,
}

impl Home {
    fn address(&self) -> Value {
        match (&self.street, &self.city, &self.pin) {
            (Some(street), Some(city), Some(pin)) => {
                json!({ "lines": [street], "city": city, "pin": pin, "state": self.state_code })
            }
            _ => json!({ "state": self.state_code }),
        }
    }
}

/// The customer's row: new, or as she calls herself today.
async fn remember(tx: &mut PgConnection, cart: &Cart) -> sqlx::Result<(i32, Home)> {
    let customer = sqlx::query_scalar(
        "insert into shop.customers as c (name, phone, language, street, city, pin, state_code)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (phone) do update
         set name = excluded.name, language = excluded.language, state_code = excluded.state_code,
             street = coalesce(excluded.street, c.street), city = coalesce(excluded.city, c.city),
             pin = coalesce(excluded.pin, c.pin)
         returning customer_id",
    )
    .bind(cart.name.trim())
    .bind(&cart.phone)
    .bind(&cart.language)
    .bind(&cart.street)
    .bind(&cart.city)
    .bind(&cart.pin)
    .bind(&cart.state_code)
    .fetch_one(&mut *tx)
    .await?;
    let home = sqlx::query_as("select street, city, pin, state_code from shop.customers where customer_id = $1")
        .bind(customer)
        .fetch_one(tx)
        .await?;
    Ok((customer, home))
}

struct Line {
    product: i32,
    name: String,
    hsn: String,
    price: Decimal,
    is_phone: bool,
    quantity: i32,
}

async fn price(tx: &mut PgConnection, cart: &Cart) -> Result<Vec<Line>, NotSold> {
    let mut lines = Vec::with_capacity(cart.items.len());
    for &(product, quantity) in &cart.items {
        let found: Option<(String, String, Decimal, bool)> =
            sqlx::query_as("select name, hsn, price, is_phone from shop.products where product_id = $1")
                .bind(product)
                .fetch_optional(&mut *tx)
                .await?;
        let (name, hsn, price, is_phone) = found.ok_or(NotSold::NoSuchProduct(product))?;
        lines.push(Line { product, name, hsn, price, is_phone, quantity });
    }
    Ok(lines)
}

/// Writes the line, takes phones out of the stock, and says the line as the invoice wants it.
async fn hand_over(tx: &mut PgConnection, order: i64, line: &Line) -> Result<Value, NotSold> {
    sqlx::query("insert into shop.order_lines (order_id, product_id, quantity, price) values ($1, $2, $3, $4)")
        .bind(order)
        .bind(line.product)
        .bind(line.quantity)
        .bind(line.price)
        .execute(&mut *tx)
        .await?;
    let mut billed = json!({
        "description": line.name,
        "hsn": line.hsn,
        "quantity": line.quantity.to_string(),
        "unit": "NOS",
        "unit_price": before_tax(line.price).to_string(),
        "gst_rate": "18",
    });
    if line.is_phone {
        let imeis: Vec<String> = sqlx::query_scalar(
            "update shop.stock
             set order_id = $1
             where imei in (
                 select imei
                 from shop.stock
                 where product_id = $2
                     and order_id is null
                 order by imei
                 limit $3
                 for update skip locked
             )
             returning imei",
        )
        .bind(order)
        .bind(line.product)
        .bind(i64::from(line.quantity))
        .fetch_all(&mut *tx)
        .await?;
        if imeis.len() < usize::try_from(line.quantity).unwrap_or(usize::MAX) {
            return Err(NotSold::SoldOut(line.name.clone()));
        }
        billed["imeis"] = json!(imeis);
    }
    Ok(billed)
}

/// The price tag has 18 % of tax inside; an invoice starts from the price before tax.
fn before_tax(price: Decimal) -> Decimal {
    (price / Decimal::new(118, 2)).round_dp(6)
}

/// What stands once on an invoice.
struct Head<'a> {
    number: &'a str,
    issued_on: NaiveDate,
    total: Decimal,
}

/// The invoice in the words of the kind's published schema.
fn document(cart: &Cart, home: &Home, head: &Head<'_>, lines: &[Value]) -> Value {
    json!({
        "invoice": {
            "kind": "tax_invoice",
            "number": head.number,
            "issued_on": head.issued_on,
            "supplier": {
                "legal_name": "Sharma Mobiles Private Limited",
                "trade_name": "Sharma Mobiles",
                "gstin": "27ZZZPZ0000Z1ZA",
                "address": {
                    "lines": ["14 Laxmi Road", "Shaniwar Peth"], "city": "Pune", "pin": "411030", "state": "27"
                },
                "phone": "+91 20 5550 0142",
                "email": "bills@sharma-mobiles.example"
            },
            "buyer": { "name": cart.name.trim(), "address": home.address() },
            "lines": lines,
            "total": head.total.to_string(),
            "note": "Goods once sold are exchanged within 14 days with this invoice. धन्यवाद!"
        },
        "deliver": { "whatsapp": { "to": cart.phone, "language": cart.language } }
    })
}

/// A thing on the shelf, as the page shows it.
#[derive(Clone, Debug, serde::Serialize, sqlx::FromRow)]
pub(super) struct Product {
    pub(super) product_id: i32,
    pub(super) name: String,
    pub(super) price: Decimal,
    pub(super) is_phone: bool,
}

pub(super) async fn products(frontend: &PgPool) -> sqlx::Result<Vec<Product>> {
    sqlx::query_as("select product_id, name, price, is_phone from shop.products order by product_id")
        .fetch_all(frontend)
        .await
}

/// A cart for a customer the shop knows.
pub(super) async fn cart_of(frontend: &PgPool, customer: i32, items: &[(i32, i32)]) -> sqlx::Result<Cart> {
    let (name, phone, language): (String, String, String) =
        sqlx::query_as("select name, phone, language from shop.customers where customer_id = $1")
            .bind(customer)
            .fetch_one(frontend)
            .await?;
    let home: Home = sqlx::query_as("select street, city, pin, state_code from shop.customers where customer_id = $1")
        .bind(customer)
        .fetch_one(frontend)
        .await?;
    Ok(Cart {
        name,
        phone,
        language,
        state_code: home.state_code,
        street: home.street,
        city: home.city,
        pin: home.pin,
        items: items.to_vec(),
        method: "upi".to_owned(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use chrono_tz::Asia::Kolkata;
    use muneem_jobs::{
        invoice::{self, Issue},
        queue::{self, Kind},
    };
    use muneem_postgres::testing::TestDb;
    use sqlx::postgres::PgPoolOptions;

    use super::*;

    /// The shop in a database of its own, and its login.
    pub(in crate::demo) async fn shop() -> (TestDb, PgPool) {
        let db = TestDb::new(&muneem_jobs::MIGRATOR).await;
        let mut conn = db.pool().acquire().await.unwrap();
        queue::sync_kinds(&mut conn, &[Kind::of::<Issue>()]).await.unwrap();
        sqlx::query(
            "insert into muneem.people_businesses (business_id, handle, legal_name, created_at)
             values (gen_random_uuid(), $1, 'Sharma Mobiles Private Limited', now())",
        )
        .bind(BUSINESS)
        .execute(&mut *conn)
        .await
        .unwrap();
        open(&mut conn).await.unwrap();
        let frontend = PgPoolOptions::new().connect_lazy_with(db.connect_options().username(LOGIN));
        (db, frontend)
    }

    #[tokio::test]
    async fn every_sale_is_an_invoice_that_the_rules_accept() {
        let (db, frontend) = shop().await;
        for customer in 1..=24 {
            let items = [(customer % 7 + 1, customer % 3 + 1), (8 + customer % 11, 1)];
            let cart = cart_of(&frontend, customer, &items).await.unwrap();
            let sold = sell(&frontend, &cart).await.unwrap();
            let payload: Value = sqlx::query_scalar("select payload from muneem.queue_jobs where job_id = $1")
                .bind(sold.job)
                .fetch_one(&db.pool())
                .await
                .unwrap();
            let new = serde_json::from_value(payload).unwrap();
            let today = sold.placed_at.with_timezone(&Kolkata).date_naive();
            invoice::check(&new, today).unwrap_or_else(|problems| panic!("{problems:?}"));
        }
    }

    #[tokio::test]
    async fn a_sale_that_fails_leaves_neither_order_nor_number_nor_job() {
        let (db, frontend) = shop().await;
        let mut cart = cart_of(&frontend, 1, &[(1, 10)]).await.unwrap();
        assert_eq!(sell(&frontend, &cart).await.unwrap().invoice_number.rsplit('/').next(), Some("00001"));
        assert!(matches!(sell(&frontend, &cart).await, Err(NotSold::SoldOut(_))));
        cart.items = vec![(99, 1)];
        assert!(matches!(sell(&frontend, &cart).await, Err(NotSold::NoSuchProduct(99))));
        cart.items = vec![(8, 1)];
        assert_eq!(sell(&frontend, &cart).await.unwrap().invoice_number.rsplit('/').next(), Some("00002"));
        let left: (i64, i64) = sqlx::query_as(
            "select (select count(*) from muneem.queue_jobs), (select count(*) from shop.orders where order_id > 1000)",
        )
        .fetch_one(&db.pool())
        .await
        .unwrap();
        assert_eq!(left, (2, 2));
    }

    #[tokio::test]
    async fn the_shops_login_reaches_no_table_of_ours() {
        let (_db, frontend) = shop().await;
        for table in ["muneem.queue_jobs", "muneem.invoice_invoices", "muneem.messaging_messages"] {
            let statement = sqlx::AssertSqlSafe(format!("select 1 from {table}"));
            let refused = sqlx::query(statement).execute(&frontend).await.unwrap_err();
            assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{table}");
        }
    }

    #[tokio::test]
    async fn imeis_pass_the_luhn_test() {
        let (db, _) = shop().await;
        let imeis: Vec<String> = sqlx::query_scalar("select imei from shop.stock").fetch_all(&db.pool()).await.unwrap();
        assert_eq!(imeis.len(), 280);
        for imei in imeis {
            let sum: u32 = imei
                .bytes()
                .rev()
                .enumerate()
                .map(|(place, digit)| match (place % 2, u32::from(digit - b'0')) {
                    (1, digit) => digit * 2 / 10 + digit * 2 % 10,
                    (_, digit) => digit,
                })
                .sum();
            assert!(imei.len() == 15 && sum.is_multiple_of(10), "{imei}");
        }
    }
}

//! The shop's checkout: a page that stands for any frontend. It knows its own tables and one function of ours.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Form, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use handlebars::Handlebars;
use rust_decimal::Decimal;
use serde_json::json;
use sqlx::PgPool;

use super::{
    shop::{self, Cart, NotSold},
    watch::{self, Bill, Pdfs},
};

/// What the pages need.
pub(super) struct Counter {
    /// The frontend's own login.
    pub(super) frontend: PgPool,
    /// Reads how far an order has come.
    pub(super) house: PgPool,
    /// Who hands out the PDFs.
    pub(super) files: Pdfs,
    /// The customer's phone in the stand-in.
    pub(super) phone_url: String,
    pages: Handlebars<'static>,
}

impl Counter {
    pub(super) fn new(
        frontend: PgPool,
        house: PgPool,
        files: Pdfs,
        phone_url: String,
    ) -> Result<Self, handlebars::TemplateError> {
        let mut pages = Handlebars::new();
        pages.set_strict_mode(true);
        pages.register_template_string("style", include_str!("style.css"))?;
        pages.register_template_string("checkout", include_str!("checkout.html.hbs"))?;
        pages.register_template_string("order", include_str!("order.html.hbs"))?;
        Ok(Self { frontend, house, files, phone_url, pages })
    }

    fn page(&self, name: &str, context: &serde_json::Value) -> Result<Html<String>, Trouble> {
        Ok(Html(self.pages.render(name, context)?))
    }
}

pub(super) fn routes(counter: Arc<Counter>) -> Router {
    Router::new()
        .route("/", get(checkout))
        .route("/buy", post(buy))
        .route("/orders/{order}", get(order))
        .route("/orders/{order}/state", get(order_state))
        .route("/orders/{order}/invoice.pdf", get(pdf))
        .with_state(counter)
}

/// What the customer is told when something is wrong.
enum Trouble {
    NotSold(NotSold),
    NotFound,
    Broken(String),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<handlebars::RenderError> for Trouble {
    fn from(error: handlebars::RenderError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<NotSold> for Trouble {
    fn from(error: NotSold) -> Self {
        Self::NotSold(error)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NotSold(NotSold::Database(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            Self::NotSold(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()),
            Self::NotFound => (StatusCode::NOT_FOUND, "no such order, or not that far yet".to_owned()),
            Self::Broken(error) => (StatusCode::INTERNAL_SERVER_ERROR, error),
        };
        (status, format!("{text}\n")).into_response()
    }
}

async fn checkout(State(counter): State<Arc<Counter>>) -> Result<Html<String>, Trouble> {
    let shelf = shop::products(&counter.frontend).await?.into_iter().map(|product| {
        json!({ "id": product.product_id, "name": product.name, "price": rupees(product.price), "phone": product.is_phone })
    });
    let (phones, extras): (Vec<_>, Vec<_>) = shelf.partition(|product| product["phone"] == true);
    counter.page(
        "checkout",
        &json!({ "phones": phones, "extras": extras, "states": STATES.map(|(code, name)| json!({
        "code": code, "name": name, "here": code == "27",
    })) }),
    )
}

/// The States on the form; any other code can be sent by hand.
const STATES: [(&str, &str); 12] = [
    ("07", "Delhi"),
    ("08", "Rajasthan"),
    ("09", "Uttar Pradesh"),
    ("19", "West Bengal"),
    ("24", "Gujarat"),
    ("27", "Maharashtra"),
    ("29", "Karnataka"),
    ("30", "Goa"),
    ("32", "Kerala"),
    ("33", "Tamil Nadu"),
    ("36", "Telangana"),
    ("37", "Andhra Pradesh"),
];

async fn buy(
    State(counter): State<Arc<Counter>>,
    headers: HeaderMap,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Trouble> {
    let cart = cart(&fields)?;
    let sold = shop::sell(&counter.frontend, &cart).await?;
    let path = format!("/orders/{}", sold.order);
    let wants_page = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if wants_page.is_some_and(|accept| accept.contains("text/html")) {
        return Ok(Redirect::to(&path).into_response());
    }
    let told = format!(
        "Sold: order {}, invoice {}, ₹{}, job {}. It is on its way to {}\n",
        sold.order,
        sold.invoice_number,
        rupees(sold.total),
        sold.job,
        counter.phone_url,
    );
    Ok(told.into_response())
}

/// The form's fields as a cart; what a hand-written request leaves out is filled in.
fn cart(fields: &[(String, String)]) -> Result<Cart, NotSold> {
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim().to_owned());
    let mut items = BTreeMap::new();
    for (_, product) in fields.iter().filter(|(key, _)| key == "product") {
        let product =
            product.parse().map_err(|_| NotSold::Field { field: "product", mend: "take a number from the shelf" })?;
        *items.entry(product).or_insert(0) += 1;
    }
    if items.is_empty() {
        items.insert(1, 1);
    }
    let phone = field("phone").unwrap_or_default().replace([' ', '-'], "");
    Ok(Cart {
        name: field("name").unwrap_or_default(),
        // A `+` that was not encoded arrives as a blank.
        phone: if phone.starts_with('+') { phone } else { format!("+{phone}") },
        language: field("language").filter(|language| language == "hi").unwrap_or_else(|| "en".to_owned()),
        state_code: field("state").unwrap_or_else(|| "27".to_owned()),
        street: field("street").filter(|street| !street.is_empty()),
        city: field("city").filter(|city| !city.is_empty()),
        pin: field("pin").filter(|pin| !pin.is_empty()),
        items: items.into_iter().collect(),
        method: field("method")
            .filter(|method| ["card", "cash"].contains(&method.as_str()))
            .unwrap_or_else(|| "upi".to_owned()),
    })
}

async fn load(counter: &Counter, order: i64) -> Result<Bill, Trouble> {
    watch::bills(&counter.house, &[order]).await?.pop().ok_or(Trouble::NotFound)
}

async fn order(State(counter): State<Arc<Counter>>, Path(order): Path<i64>) -> Result<Html<String>, Trouble> {
    let bill = load(&counter, order).await?;
    counter.page(
        "order",
        &json!({
            "order": bill.order_id,
            "number": bill.invoice_number,
            "total": rupees(bill.total),
            "phone_url": counter.phone_url,
        }),
    )
}

async fn order_state(
    State(counter): State<Arc<Counter>>,
    Path(order): Path<i64>,
) -> Result<axum::Json<serde_json::Value>, Trouble> {
    let bill = load(&counter, order).await?;
    let seconds = |at: Option<chrono::DateTime<chrono::Utc>>| {
        at.map(|at| format!("{:.1} s", (at - bill.placed_at).num_milliseconds().max(0) as f64 / 1000.0))
    };
    Ok(axum::Json(json!({
        "recorded": seconds(bill.received_at),
        "issued": seconds(bill.issued_at),
        "posted": seconds(bill.posted_at),
        "delivered": seconds(bill.delivered_at),
        "read": seconds(bill.read_at),
    })))
}

async fn pdf(State(counter): State<Arc<Counter>>, Path(order): Path<i64>) -> Result<Response, Trouble> {
    let invoice = load(&counter, order).await?.pdf_of.ok_or(Trouble::NotFound)?;
    let bytes = counter.files.fetch(invoice).await.map_err(|error| Trouble::Broken(error.to_string()))?;
    let bytes = bytes.ok_or(Trouble::NotFound)?;
    Ok(([(header::CONTENT_TYPE, "application/pdf")], bytes).into_response())
}

/// Rupees with Indian grouping, without paise when there are none.
pub(super) fn rupees(amount: Decimal) -> String {
    muneem_jobs::invoice::grouped(amount).trim_end_matches(".00").to_owned()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    fn typed(fields: &[(&str, &str)]) -> Cart {
        let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
        cart(&fields).unwrap()
    }

    #[test]
    fn a_plus_that_the_shell_left_bare_is_put_back() {
        assert_eq!(typed(&[("name", "Asha"), ("phone", " 917000000001")]).phone, "+917000000001");
        assert_eq!(typed(&[("name", "Asha"), ("phone", "+91 70000 00001")]).phone, "+917000000001");
    }

    #[test]
    fn the_same_thing_twice_is_two_of_it() {
        assert_eq!(typed(&[("product", "3"), ("product", "3"), ("product", "8")]).items, [(3, 2), (8, 1)]);
    }

    /// One request to the counter: status, location and body.
    async fn ask(routes: &Router, request: http::Request<String>) -> (StatusCode, String, String) {
        let answer = routes.clone().oneshot(request.map(axum::body::Body::from)).await.unwrap();
        let location = answer.headers().get(header::LOCATION).map(|at| at.to_str().unwrap().to_owned());
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, location.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
    }

    fn get_of(path: &str) -> http::Request<String> {
        http::Request::get(path).body(String::new()).unwrap()
    }

    fn form(accept: &str, fields: &str) -> http::Request<String> {
        http::Request::post("/buy")
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(fields.to_owned())
            .unwrap()
    }

    #[tokio::test]
    async fn a_browser_is_led_from_the_shelf_to_its_order_and_a_shell_is_told_in_a_line() {
        let (db, frontend) = shop::tests::shop().await;
        let client = crate::outbound::http::client(crate::outbound::http::Timeouts::DEFAULT).unwrap();
        let files = Pdfs::new(client, ([127, 0, 0, 1], 1).into(), secrecy::SecretString::from(""));
        let phone = "http://127.0.0.1:1/sandbox".to_owned();
        let routes = routes(Arc::new(Counter::new(frontend, db.pool(), files, phone).unwrap()));

        let (status, _, page) = ask(&routes, get_of("/")).await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("Dhruv One") && page.contains("₹42,999") && page.contains("Maharashtra"), "{page}");

        let bought = "name=%3Cb%3EAsha%3C%2Fb%3E&phone=%2B917000000001&product=1&product=16&language=hi";
        let (status, location, _) = ask(&routes, form("text/html", bought)).await;
        assert_eq!((status, location.as_str()), (StatusCode::SEE_OTHER, "/orders/1001"));
        let (status, _, page) = ask(&routes, get_of("/orders/1001")).await;
        assert!(status.is_success() && page.contains("invoice SM/") && page.contains("₹15,298"), "{page}");
        let (_, _, state) = ask(&routes, get_of("/orders/1001/state")).await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&state).unwrap()["recorded"], serde_json::Value::Null);

        let (status, _, told) = ask(&routes, form("*/*", "name=Meera&phone=917000000003&product=8")).await;
        assert!(status.is_success() && told.starts_with("Sold: order 1002, invoice SM/"), "{told}");
        let (status, _, told) = ask(&routes, form("*/*", "name=Meera&phone=12&product=8")).await;
        assert_eq!(
            (status, told.as_str()),
            (StatusCode::UNPROCESSABLE_ENTITY, "phone: write it with the country, such as +917000000001\n")
        );
        for missing in ["/orders/1", "/orders/9999", "/orders/9999/state", "/orders/1001/invoice.pdf"] {
            assert_eq!(ask(&routes, get_of(missing)).await.0, StatusCode::NOT_FOUND, "{missing}");
        }
    }
}

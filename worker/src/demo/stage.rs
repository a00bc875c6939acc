//! What the demo plays on: a private Postgres with a fresh database, the stand-in, the API and two workers, each a
//! process of its own, and the shop's page in this one.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use muneem_jobs::{
    evidence::By,
    law,
    messaging::{self, Account},
    outbound::{Clock, Phone, carrier::NumberId},
    people::{self, NewToken, Scope},
    schema,
};
use muneem_postgres::{Options as PostgresOptions, Server};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    house::{self, Process},
    page::{self, Counter},
    shop,
    story::{Say, until},
    watch::Pdfs,
};
use crate::{
    outbound::{
        chance::OsChance,
        clock::SystemClock,
        http::{self, Timeouts},
    },
    sandbox,
};

/// Name of the demo's database; dropped and made anew at each start.
const DATABASE: &str = "muneem_demo";
/// What our own processes log in as: a member of the app role, no more.
const APP_LOGIN: &str = "muneem_demo_app";
/// A worker that says nothing for so long is taken for dead, in seconds.
pub(super) const LEASE_SECS: u64 = 2;
/// How long a process may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct Stage {
    /// Stops last.
    server: Server,
    /// Reads our tables.
    pub(super) house: PgPool,
    /// The shop's own login.
    pub(super) frontend: PgPool,
    pub(super) files: Pdfs,
    pub(super) client: reqwest::Client,
    sandbox: Process,
    api: Process,
    pub(super) workers: Vec<Process>,
    pub(super) api_at: SocketAddr,
    pub(super) sandbox_at: SocketAddr,
    pub(super) shop_at: SocketAddr,
    /// Opens the API for reading, in this run only.
    pub(super) token: SecretString,
    environment: Vec<(&'static str, String)>,
    data: PathBuf,
    logs: PathBuf,
    closing: CancellationToken,
}

impl Stage {
    /// Sets everything up below `dir`, from a clean state.
    pub(super) async fn set(dir: &Path, say: Arc<Say>) -> Result<Self, Error> {
        let logs = clean(dir, "logs")?;
        let data = clean(dir, "data")?;
        let mut options = PostgresOptions::new(dir.join("postgres"));
        options.say = Some(Arc::new(move |line| say(&format!("              {line}"))));
        let server = tokio::task::spawn_blocking(move || Server::start(&options))
            .await
            .map_err(|error| Error::Page(std::io::Error::other(error)))??;
        fresh_database(&server).await?;
        let house = pool(&server.url(DATABASE))?;
        let (api_at, sandbox_at) = (house::free_port(8787)?, house::free_port(8788)?);
        let mail_at = house::free_port(8725)?;
        let listener = tokio::net::TcpListener::bind(house::free_port(8789)?).await.map_err(Error::Page)?;
        let shop_at = listener.local_addr().map_err(Error::Page)?;
        let token = set_up_business(&house).await?;
        let frontend = pool(&server.url_as(shop::LOGIN, DATABASE))?;

        let sandbox_url = format!("http://{sandbox_at}");
        let callback = format!("http://{api_at}/webhooks/whatsapp");
        let environment = vec![
            ("DATABASE_URL", server.url_as(APP_LOGIN, DATABASE)),
            ("MUNEEM__SERVER__LISTEN", api_at.to_string()),
            ("MUNEEM__DATA__DIR", data.display().to_string()),
            ("MUNEEM__QUEUE__LEASE_SECS", LEASE_SECS.to_string()),
            ("MUNEEM__SANDBOX__ENABLED", "true".to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__BASE_URL", sandbox_url.clone()),
            ("MUNEEM__MESSAGING__WHATSAPP__ACCESS_TOKEN", "sandbox-access-token".to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__APP_SECRETS", "sandbox-app-secret".to_owned()),
            ("MUNEEM__MESSAGING__WHATSAPP__VERIFY_TOKEN", "sandbox-verify-token".to_owned()),
            // Webhooks of the stand-in come at once: an attempt that nobody heard of for so long was never made.
            ("MUNEEM__MESSAGING__WHATSAPP__RECONCILE_WINDOW_SECS", "3".to_owned()),
            ("MUNEEM__MESSAGING__MAIL__HOST", mail_at.ip().to_string()),
            ("MUNEEM__MESSAGING__MAIL__PORT", mail_at.port().to_string()),
            ("MUNEEM__MESSAGING__MAIL__TLS", "none".to_owned()),
            ("MUNEEM__MESSAGING__MAIL__FROM", "muneem@sharma-mobiles.example".to_owned()),
            ("MUNEEM__TELEMETRY__FORMAT", "pretty".to_owned()),
        ];
        let (listen, mail) = (sandbox_at.to_string(), mail_at.to_string());
        let arguments = ["sandbox", "--listen", &listen, "--mail", &mail, "--callback", &callback];
        let sandbox = house::start("sandbox", &arguments, &environment, &logs)?;
        let api = house::start("api", &["serve", "--only", "api,scheduler"], &environment, &logs)?;
        let client = http::client(Timeouts { connect: Duration::from_secs(2), total: Duration::from_secs(5) })
            .map_err(Error::http("nobody yet"))?;

        let closing = CancellationToken::new();
        let files = Pdfs::new(client.clone(), api_at, token.clone());
        let counter = Counter::new(frontend.clone(), house.clone(), files.clone(), format!("{sandbox_url}/sandbox"))?;
        let serving = axum::serve(listener, page::routes(Arc::new(counter)));
        tokio::spawn(closing.clone().run_until_cancelled_owned(serving.into_future()));

        let mut stage = Self {
            server,
            house,
            frontend,
            files,
            client,
            sandbox,
            api,
            workers: Vec::new(),
            api_at,
            sandbox_at,
            shop_at,
            token,
            environment,
            data,
            logs,
            closing,
        };
        stage.add_worker()?;
        stage.add_worker()?;
        stage.wait_ready().await?;
        Ok(stage)
    }

    /// Starts one more worker process.
    pub(super) fn add_worker(&mut self) -> Result<(), Error> {
        let name = format!("worker-{}", self.workers.len() + 1);
        self.workers.push(house::start(&name, &["serve", "--only", "workers"], &self.environment, &self.logs)?);
        Ok(())
    }

    async fn wait_ready(&mut self) -> Result<(), Error> {
        let health = format!("http://{}/health/ready", self.api_at);
        let phone = format!("http://{}/sandbox", self.sandbox_at);
        let ready = until(READY_WITHIN, async || {
            self.check()?;
            let answers =
                async |url: &str| self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success());
            if !answers(&health).await || !answers(&phone).await {
                return Ok(None);
            }
            let workers: i64 = sqlx::query_scalar("select count(*) from muneem.queue_workers")
                .fetch_one(&self.house)
                .await
                .map_err(Error::database("count the workers"))?;
            Ok::<_, Error>((workers >= 2).then_some(()))
        });
        match ready.await? {
            Some(()) => Ok(()),
            None => Err(self.api.ended("is not ready")),
        }
    }

    /// The link with which the shop's owner comes in to the console, as `serve` leaves it on a first start.
    pub(super) fn owners_link(&self) -> Option<String> {
        std::fs::read_to_string(self.data.join("first-owner")).ok().map(|link| link.trim().to_owned())
    }

    /// Where the processes' own words are.
    pub(super) fn logs(&self) -> &Path {
        &self.logs
    }

    /// An error when a process that should run has ended.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.sandbox.check()?;
        self.api.check()?;
        self.workers.iter_mut().try_for_each(Process::check)
    }

    /// Ends the processes in order: workers hand back, then the API, the stand-in, Postgres.
    pub(super) async fn clear(mut self) {
        self.closing.cancel();
        for worker in self.workers.drain(..) {
            worker.end().await;
        }
        self.api.end().await;
        self.sandbox.end().await;
        self.house.close().await;
        self.frontend.close().await;
        self.server.stop();
    }
}

fn file(path: &Path, source: std::io::Error) -> Error {
    Error::File { path: path.to_owned(), source }
}

/// An empty directory of this name below `dir`.
fn clean(dir: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = dir.join(name);
    match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(&path, error)),
        _ => {}
    }
    std::fs::create_dir_all(&path).map_err(|error| file(&path, error))?;
    Ok(path)
}

fn pool(url: &str) -> Result<PgPool, Error> {
    PgPoolOptions::new().max_connections(4).connect_lazy(url).map_err(Error::database("connect"))
}

async fn fresh_database(server: &Server) -> Result<(), Error> {
    let mut admin = PgConnection::connect_with(&server.connect_options("postgres"))
        .await
        .map_err(Error::database("connect to the private Postgres"))?;
    for statement in [
        format!("drop database if exists {DATABASE} with (force)"),
        // Copying files costs a start less than writing all of them to the log.
        format!("create database {DATABASE} strategy file_copy"),
    ] {
        admin.execute(AssertSqlSafe(statement)).await.map_err(Error::database("make a fresh database"))?;
    }
    admin.close().await.map_err(Error::database("leave the private Postgres"))
}

/// The schema, the business, its WhatsApp number, the shop's tables, and what our processes log in as.
async fn set_up_business(owner: &PgPool) -> Result<SecretString, Error> {
    let mut conn = owner.acquire().await.map_err(Error::database("connect as the owner"))?;
    let by = By::operator(SystemClock.now(), &OsChance);
    schema::migrate(&mut conn).await.map_err(|error| Error::Business(Box::new(error)))?;
    law::set_sandbox(&mut conn, true).await.map_err(Error::database("make its clock a sandbox's"))?;
    let business =
        people::add_business(&mut conn, shop::BUSINESS, "Sharma Mobiles Private Limited", &SystemClock, &OsChance)
            .await
            .map_err(|error| Error::Business(Box::new(error)))?;
    let account = Account {
        business: business.business_id,
        number: NumberId::parse(sandbox::Options::NUMBER).expect("the stand-in's own number"),
        waba_id: sandbox::Options::ACCOUNT.to_owned(),
        display_phone: Phone::parse("+919800000001").expect("an Indian mobile"),
    };
    messaging::set_account(&mut conn, &account, &by).await.map_err(|error| Error::Business(Box::new(error)))?;
    let reader = NewToken {
        label: "demo".to_owned(),
        business_id: Some(business.business_id),
        scopes: vec![
            Scope::QueueRead,
            Scope::ScheduleRead,
            Scope::InvoiceRead,
            Scope::InvoiceOpen,
            Scope::MessagingRead,
        ],
        ..NewToken::bootstrap()
    };
    let (_, token) = people::create_token(&mut conn, reader, &SystemClock, &OsChance)
        .await
        .map_err(|error| Error::Business(Box::new(error)))?;
    shop::open(&mut conn).await.map_err(Error::database("open the shop"))?;
    sqlx::query("insert into muneem.people_logins (login, business_id) values ($1, $2)")
        .bind(shop::LOGIN)
        .bind(business.business_id.0)
        .execute(&mut *conn)
        .await
        .map_err(Error::database("bind the shop's login to its business"))?;
    let login = format!(
        "do $$ begin create role {APP_LOGIN} login; exception when duplicate_object or unique_violation then null; end $$;
         grant muneem_app to {APP_LOGIN}"
    );
    sqlx::raw_sql(AssertSqlSafe(login)).execute(&mut *conn).await.map_err(Error::database("make the app's login"))?;
    Ok(token)
}

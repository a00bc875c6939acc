use std::{
    io::IsTerminal, net::SocketAddr, os::unix::fs::OpenOptionsExt, path::Path, process::ExitCode, sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use muneem_jobs::{
    evidence::{Act, Actor, By, Object, words},
    law,
    people::{self, signin},
    queue::Lane,
    schema,
    vault::Look,
};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::{net::TcpListener, signal::unix::SignalKind, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::output;
use crate::{
    app::{App, Database},
    config::Config,
    console,
    http::{
        self, Api, mail_reports,
        rate::{Guesses, Rates},
        sandbox, whatsapp,
    },
    outbound::http::{Timeouts, client},
    portal::{self, Portal},
    telemetry::{self, Voice},
};

/// Works on the queue, ticks the schedules and answers HTTP, until Ctrl-C or SIGTERM
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  muneem serve                                  everything in one process\n  \
                        muneem serve --only workers --lanes otp       one of many machines")]
pub(super) struct Args {
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
    /// Only these lanes
    #[arg(long, value_delimiter = ',', value_name = "LANE")]
    lanes: Vec<Lane>,
}

/// One part of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// HTTP: API, webhooks in, health, metrics
    Api,
    /// Runs jobs
    Workers,
    /// Ticks schedules
    Scheduler,
}

impl Part {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Workers => "workers",
            Self::Scheduler => "scheduler",
        }
    }
}

pub(super) async fn run(args: &Args, config: Config) -> anyhow::Result<ExitCode> {
    let collector = config.telemetry.otlp_endpoint.is_some().then(|| client(Timeouts::DEFAULT)).transpose()?;
    let telemetry = telemetry::init(&config.telemetry, Voice::Serving, collector)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let metrics = telemetry::metrics()?;
    let database = Database::open(&config, Some(Arc::new(|line: &str| tracing::info!("{line}"))))?;
    if database.is_private() {
        database.settle().await?;
    }
    let size = config.database.pool_size;
    let app = Arc::new(App::build(config, &database, size).await?);
    schema::check(&app.deps.db, app.config.sandbox.enabled).await?;
    record_start(&app, args).await.context("the start could not be put on record; nothing is served unrecorded")?;
    // Before anything is sealed, opened or found in a column that is not what it was. What is closed is in the log.
    let closed = app.deps.vault.check_columns(&mut *app.deps.db.acquire().await?, Look::Shape, &Actor::System).await;
    closed.context("the columns that the frontend registered could not be looked at")?;

    // From here on it ends in order, however early it is asked to.
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    let does = |part| args.only.is_empty() || args.only.contains(&part);
    let lanes = if args.lanes.is_empty() { Lane::ALL.to_vec() } else { args.lanes.clone() };
    let stop = CancellationToken::new();
    let mut parts = JoinSet::new();
    parts.spawn({
        let (app, stop) = (Arc::clone(&app), stop.clone());
        async move {
            app.follow_clock(stop.clone()).await;
            stop.cancelled().await;
            anyhow::Ok(())
        }
    });
    if does(Part::Api) {
        let (app, stop) = (Arc::clone(&app), stop.clone());
        parts.spawn(async move {
            app.refusals.settle_until(stop).await;
            Ok(())
        });
    }
    let database = Arc::new(database);
    if does(Part::Workers) {
        let (app, database, stop) = (Arc::clone(&app), Arc::clone(&database), stop.clone());
        parts.spawn(async move { app.work(&database, lanes, stop).await });
    }
    if does(Part::Scheduler) {
        let (app, stop) = (Arc::clone(&app), stop.clone());
        parts.spawn(async move {
            app.tick(stop).await;
            Ok(())
        });
    }
    if does(Part::Scheduler) {
        let (app, stop) = (Arc::clone(&app), stop.clone());
        parts.spawn(async move { app.seal(stop).await });
    }
    if does(Part::Scheduler)
        && let Some(reader) = app.mail_reader()?
    {
        let stop = stop.clone();
        parts.spawn(async move {
            reader.run(stop).await;
            Ok(())
        });
    }
    let api = does(Part::Api);
    if let Some(listen) = if api { Some(app.config.server.listen) } else { app.config.telemetry.listen } {
        let setting = if api { "server.listen" } else { "telemetry.listen" };
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}; set `{setting}` to a free address"))?;
        let at = listener.local_addr()?;
        tracing::info!("listening on http://{at}");
        let shown = shown(&app, metrics, does(Part::Workers));
        let router = if api {
            if app.moved_clock.is_some() && !at.ip().is_loopback() {
                tracing::warn!("sandbox mode, and not on loopback: whoever reaches {at} may move the clock");
            }
            show_first_token(&app, at).await?;
            let origin = app.config.console_origin_at(at.port());
            show_first_invitation(&app, &origin).await?;
            routes(&app, shown, origin)?
        } else {
            http::router_for_watchers(shown)
        };
        let router = router.into_make_service_with_connect_info::<SocketAddr>();
        let stop = stop.clone();
        parts.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.context("HTTP ended")
        });
    }

    let ended = tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(anyhow::Error::from),
        _ = terminate.recv() => Ok(()),
        // A part that ends while nobody asked has failed; the rest follows in peace.
        part = parts.join_next() => part.map_or(Ok(()), |part| part.map_err(anyhow::Error::from).flatten()),
    };
    stop.cancel();
    tracing::info!("ending: what has not begun is handed back");
    let grace = app.config.queue.shutdown + Duration::from_secs(5);
    let rest = tokio::time::timeout(grace, async {
        let mut rest = Ok(());
        while let Some(part) = parts.join_next().await {
            rest = rest.and(part.map_err(anyhow::Error::from).flatten());
        }
        rest
    });
    let rest = rest.await.unwrap_or(Ok(()));
    parts.abort_all();
    app.refusals.settle(true).await;
    telemetry.shutdown().await;
    ended.and(rest)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes into the evidence which program begins to serve, with which parts and which data of the law.
async fn record_start(app: &App, args: &Args) -> anyhow::Result<()> {
    let deps = &app.deps;
    let by = By::system(deps.clock.now(), &*deps.chance);
    let parts: Vec<&str> = args.only.iter().map(|part| part.as_str()).collect();
    let started = Act {
        word: words::SERVE_STARTED,
        business: None,
        object: Object { kind: "process", id: &deps.chance.uuid_v7(by.now).to_string() },
        details: json!({
            "program": env!("CARGO_PKG_VERSION"),
            "parts": parts,
            "lanes": args.lanes.iter().map(|lane| lane.as_str()).collect::<Vec<_>>(),
            "law": law::data_sha256(),
            "sandbox": app.moved_clock.is_some(),
        }),
    };
    by.record(&mut *deps.db.acquire().await?, started).await?;
    Ok(())
}

/// On an installation that nobody holds a token of, makes the first one and shows it, once and not in the log: where
/// standard output is no terminal but somebody's journal, in a file that only we can read.
async fn show_first_token(app: &App, at: SocketAddr) -> anyhow::Result<()> {
    let deps = &app.deps;
    let mut db = deps.db.acquire().await?;
    let Some((_, bearer)) = people::create_first_token(&mut db, &*deps.clock, &*deps.chance).await? else {
        return Ok(());
    };
    let bearer = bearer.expose_secret();
    if std::io::stdout().is_terminal() {
        return output::text(&format!(
            "\nThe first token of this installation. It may do everything; keep it now, it is not shown again:\n\n  \
             {bearer}\n\nUse it:  curl -H 'authorization: Bearer {bearer}' http://{at}/v1/queue/stats\n\n"
        ));
    }
    let file = app.config.data.dir.join("first-token");
    keep_to_ourselves(&file, bearer).with_context(|| {
        format!("cannot write the first token to {}; make one: muneem people token create --bootstrap", file.display())
    })?;
    output::text(&format!(
        "The first token of this installation is in {0}. It may do everything: take it and delete the file.\n\
         Use it:  curl -H \"authorization: Bearer $(cat {0})\" http://{at}/v1/queue/stats\n",
        file.display()
    ))
}

/// Where nobody works yet, shows the link with which the first owner comes in, in the same way as the first token.
async fn show_first_invitation(app: &App, origin: &str) -> anyhow::Result<()> {
    let deps = &app.deps;
    let mut db = deps.db.acquire().await?;
    // With a business set up already, its first owner is meant.
    let businesses = people::list_businesses(&mut db).await?;
    let business = match businesses.as_slice() {
        [only] => Some(only.business_id),
        _ => None,
    };
    let first = signin::invite_first(&mut db, business, deps.clock.now(), &*deps.chance).await?;
    let Some((_, token)) = first else { return Ok(()) };
    let link = format!("{origin}/console/invitation/{}", token.expose_secret());
    if std::io::stdout().is_terminal() {
        return output::text(&format!(
            "Nobody works here yet. Who opens this link within a day becomes the owner:\n\n  {link}\n\n\
             A new one: muneem people invite\n\n"
        ));
    }
    let file = app.config.data.dir.join("first-owner");
    keep_to_ourselves(&file, &link).with_context(|| {
        format!("cannot write the first owner's link to {}; make one: muneem people invite", file.display())
    })?;
    output::text(&format!(
        "Nobody works here yet. The link with which the first owner comes in is in {}: open it within a day.\n",
        file.display()
    ))
}

/// Writes one line into a file that only we can read.
fn keep_to_ourselves(file: &Path, line: &str) -> std::io::Result<()> {
    let mut open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    std::io::Write::write_all(&mut open, format!("{line}\n").as_bytes())
}

fn shown(app: &App, metrics: metrics_exporter_prometheus::PrometheusHandle, has_workers: bool) -> Arc<Api> {
    let deps = &app.deps;
    let pulse = app.pulse.clone();
    Arc::new(Api {
        db: deps.db.clone(),
        clock: Arc::clone(&deps.clock),
        chance: Arc::clone(&deps.chance),
        objects: Arc::clone(&deps.objects),
        vault: Arc::clone(&deps.vault),
        webhooks: deps.webhooks.settings,
        rates: Rates::new(&app.config.server),
        cursors: http::CursorKey::default(),
        settings: app.config.server.clone(),
        metrics,
        refusals: Arc::clone(&app.refusals),
        workers_beat: has_workers.then(|| -> Arc<dyn Fn() -> bool + Send + Sync> { Arc::new(move || pulse.beats()) }),
    })
}

fn routes(app: &App, api: Arc<Api>, origin: String) -> anyhow::Result<Router> {
    let deps = &app.deps;
    let console = app.console(origin)?;
    let room = console::oidc::Room::new(Arc::clone(&deps.vault)).context("identity providers cannot be spoken to")?;
    let mut others = console::oidc_routes(Arc::clone(&console), Arc::new(room)).merge(console::routes(console));
    others = others.merge(whatsapp::routes(whatsapp::Intake {
        db: deps.db.clone(),
        clock: Arc::clone(&deps.clock),
        chance: Arc::clone(&deps.chance),
        vault: Arc::clone(&deps.vault),
        credentials: app.credentials.clone(),
        body_limit_bytes: app.config.server.webhook_body_limit_bytes,
    }));
    if let Some(token) = &app.config.messaging.mail.webhook_token {
        others = others.merge(mail_reports::routes(mail_reports::Intake {
            db: deps.db.clone(),
            clock: Arc::clone(&deps.clock),
            chance: Arc::clone(&deps.chance),
            vault: Arc::clone(&deps.vault),
            token: token.clone(),
            body_limit_bytes: app.config.server.webhook_body_limit_bytes,
        }));
    }
    if let Some(clock) = &app.moved_clock {
        others = others.merge(sandbox::routes(sandbox::ClockRoom { api: Arc::clone(&api), clock: clock.clone() }));
    }
    others = others.merge(portal::routes(Arc::new(Portal {
        db: deps.db.clone(),
        clock: Arc::clone(&deps.clock),
        chance: Arc::clone(&deps.chance),
        vault: Arc::clone(&deps.vault),
        guesses: Guesses::new(app.config.server.token_guesses_per_minute),
        trusted_proxies: app.config.server.trusted_proxies.clone(),
    })));
    Ok(http::router_with(api, others))
}

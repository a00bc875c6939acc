use sqlx::PgPool;

/// Processor time of all of a Postgres server's processes, where it runs on this machine.
pub(super) struct ServerCpu {
    postmaster: u32,
    ticks_per_sec: f64,
}

impl ServerCpu {
    /// Finds the server by one of its processes; none when it runs elsewhere.
    pub(super) async fn find(db: &PgPool) -> Option<Self> {
        let checkpointer: i32 =
            sqlx::query_scalar("select pid from pg_stat_activity where backend_type = 'checkpointer'")
                .fetch_one(db)
                .await
                .ok()?;
        let stat = Stat::of(u32::try_from(checkpointer).ok()?)?;
        (stat.name.contains("postgres")).then_some(Self {
            postmaster: stat.parent,
            // Linux reports processor time to programs in hundredths of a second on every machine (USER_HZ).
            ticks_per_sec: 100.0,
        })
    }

    /// Seconds used so far, by those that have ended too.
    pub(super) fn seconds(&self) -> f64 {
        let mut ticks = Stat::of(self.postmaster).map_or(0, |stat| stat.own + stat.ended_children);
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(stat) = pid.and_then(Stat::of).filter(|stat| stat.parent == self.postmaster) {
                ticks += stat.own;
            }
        }
        ticks as f64 / self.ticks_per_sec
    }
}

/// What `/proc/PID/stat` says (proc_pid_stat(5)).
struct Stat {
    name: String,
    parent: u32,
    own: u64,
    ended_children: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = text.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        // Fields 4, 14 to 17 of the page, counted from 1; the tail begins with field 3.
        Some(Self {
            name,
            parent: u32::try_from(number(1)?).ok()?,
            own: number(11)? + number(12)?,
            ended_children: number(13)? + number(14)?,
        })
    }
}

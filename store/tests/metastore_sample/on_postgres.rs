//! The samples of PostgreSQL: the rows that a version wrote, put into the schema as it was then, by its own migrations.

use std::path::{Path, PathBuf};

use tidemill_store::Metastore;
use tidemill_store::postgres::{PostgresMetastore, PostgresOptions};
use tidemill_types::Day;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::{check_sample, organization, trace_day, write_sample};

/// The schema that this build writes.
const NEWEST: usize = 3;
const MIGRATIONS: [&str; NEWEST] = ["initial", "trace_days", "queue_room"];

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sample(schema: usize) -> PathBuf {
    folder().join(format!("tests/samples/metastore-v{schema}.postgres.sql"))
}

/// An empty database, or `None` where there is no server.
async fn database() -> Option<(String, String)> {
    let Ok(dsn) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
        let is_required = ["CI", "TIDEMILL_REQUIRE_POSTGRES"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!is_required, "TIDEMILL_TEST_POSTGRES is not set");
        eprintln!("skipped: TIDEMILL_TEST_POSTGRES is not set");
        return None;
    };
    let database = format!("sample_{}", Uuid::new_v4().simple());
    connect(&dsn, None).await.batch_execute(&format!("CREATE DATABASE {database}")).await.expect("is created");
    Some((dsn, database))
}

async fn connect(dsn: &str, database: Option<&str>) -> Client {
    let mut config: tokio_postgres::Config = dsn.parse().expect("a PostgreSQL URL");
    if let Some(database) = database {
        config.dbname(database);
    }
    let (client, connection) = config.connect(NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

async fn open(dsn: &str, database: &str) -> PostgresMetastore {
    let options = PostgresOptions { database: Some(database.to_owned()), ..PostgresOptions::new(dsn) };
    PostgresMetastore::connect(&options).await.expect("opens")
}

/// The schema of an earlier version, as that version made it.
async fn migrate_to(client: &Client, schema: usize) {
    client
        .batch_execute(
            "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, \
             applied_at timestamptz NOT NULL DEFAULT now())",
        )
        .await
        .expect("is created");
    for (name, version) in MIGRATIONS[..schema].iter().zip(1_i64..) {
        let path = folder().join(format!("migrations/postgres/{version:04}_{name}.sql"));
        let sql = std::fs::read_to_string(path).expect("migrations are kept");
        client.batch_execute(&sql).await.expect("migrates");
        let checksum = blake3::hash(sql.as_bytes()).to_hex().to_string();
        let insert = "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)";
        client.execute(insert, &[&version, name, &checksum]).await.expect("is noted");
    }
}

/// All rows as statements that insert them again.
async fn dump(client: &Client) -> String {
    let tables = client
        .query(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace \
             AND relname <> 'schema_migrations' ORDER BY relname <> 'organizations', 1",
            &[],
        )
        .await
        .expect("lists");
    let mut statements = vec!["DELETE FROM catalog_state;".to_owned()];
    for table in tables.iter().map(|row| row.get::<_, String>(0)) {
        let sql = format!(
            "SELECT format('INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_record(NULL::{table}, %L);', \
             row_to_json(r)) FROM {table} r ORDER BY 1"
        );
        statements.extend(client.query(&sql, &[]).await.expect("reads").iter().map(|row| row.get::<_, String>(0)));
    }
    for table in ["work", "refusals"] {
        statements.push(format!("SELECT setval(pg_get_serial_sequence('{table}', 'id'), 1000);"));
    }
    statements.join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_database_of_schema_2_opens() {
    opens(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_database_of_schema_3_opens() {
    if std::env::var_os("TIDEMILL_REWRITE").is_some() {
        let (dsn, database) = database().await.expect("there is a server");
        write_sample(&open(&dsn, &database).await).await;
        std::fs::write(sample(NEWEST), dump(&connect(&dsn, Some(&database)).await).await).expect("is written");
    }
    opens(NEWEST).await;
}

async fn opens(schema: usize) {
    let Some((dsn, database)) = database().await else { return };
    let client = connect(&dsn, Some(&database)).await;
    migrate_to(&client, schema).await;
    let rows = std::fs::read_to_string(sample(schema)).expect("the sample is committed");
    client.batch_execute(&rows).await.expect("are inserted");
    // The sample may be older than the memory of identities.
    client.execute("UPDATE identities SET forget_at = $1", &[&(i64::MAX / 2)]).await.expect("is remembered");
    let store = open(&dsn, &database).await;
    assert_eq!(store.trace_days(organization(), Day(i32::MIN), Day(i32::MAX)).await.expect("lists"), [trace_day()]);
    check_sample(&store).await;
    let applied = client.query("SELECT version FROM schema_migrations ORDER BY version", &[]).await.expect("lists");
    let applied: Vec<i64> = applied.iter().map(|row| row.get(0)).collect();
    assert_eq!(applied, (1..=NEWEST as i64).collect::<Vec<_>>(), "it is brought up to date");
}

//! tokio-postgres: METHOD commit|rollback FILE, where FILE holds a load as JSON.

use std::env;
use std::error::Error;
use std::future::poll_fn;
use std::process::exit;

use futures_util::pin_mut;
use serde::Deserialize;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::OffsetDateTime;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Transaction};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Field = Box<dyn ToSql + Sync>;

#[derive(Deserialize)]
struct Table {
    name: String,
    columns: Vec<String>,
    keys: Vec<String>,
    types: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    fn insert(&self) -> String {
        let places: Vec<String> = (1..=self.columns.len()).map(|at| format!("${at}")).collect();
        format!("INSERT INTO {} ({}) VALUES ({})", self.name, quoted(&self.columns), places.join(", "))
    }

    fn upsert(&self) -> String {
        let rest = self.columns.iter().filter(|column| !self.keys.contains(column));
        let set: Vec<String> = rest.map(|column| format!(r#""{column}" = EXCLUDED."{column}""#)).collect();
        format!("{} ON CONFLICT ({}) DO UPDATE SET {}", self.insert(), quoted(&self.keys), set.join(", "))
    }

    /// The rows in types of Rust, which go to PostgreSQL in its binary format.
    fn typed(&self) -> Outcome<Vec<Vec<Field>>> {
        self.rows
            .iter()
            .map(|row| row.iter().zip(&self.types).map(|(value, kind)| typed(value, kind)).collect())
            .collect()
    }

    fn postgres_types(&self) -> Vec<Type> {
        let of = |kind: &String| match kind.as_str() {
            "timestamptz" => Type::TIMESTAMPTZ,
            "jsonb" => Type::JSONB,
            "float8" => Type::FLOAT8,
            "boolean" => Type::BOOL,
            "bigint" => Type::INT8,
            _ => Type::TEXT,
        };
        self.types.iter().map(of).collect()
    }
}

fn typed(value: &Value, kind: &str) -> Outcome<Field> {
    Ok(match kind {
        "timestamptz" => {
            Box::new(value.as_str().map(|text| OffsetDateTime::parse(text, &Rfc3339)).transpose()?)
        }
        "jsonb" => Box::new(value.as_str().map(serde_json::from_str::<Value>).transpose()?),
        "float8" => Box::new(value.as_f64()),
        "boolean" => Box::new(value.as_bool()),
        "bigint" => Box::new(value.as_i64()),
        _ => Box::new(value.as_str().map(str::to_owned)),
    })
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!(r#""{name}""#)).collect::<Vec<_>>().join(", ")
}

fn references(row: &[Field]) -> Vec<&(dyn ToSql + Sync)> {
    row.iter().map(|field| field.as_ref()).collect()
}

async fn execute(transaction: &Transaction<'_>, table: &Table, text: &str) -> Outcome<()> {
    let statement = transaction.prepare_typed(text, &table.postgres_types()).await?;
    for row in table.typed()? {
        assert_eq!(transaction.execute(&statement, &references(&row)).await?, 1);
    }
    Ok(())
}

async fn copy(transaction: &Transaction<'_>, table: &Table) -> Outcome<()> {
    let text = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", table.name, quoted(&table.columns));
    let writer = BinaryCopyInWriter::new(transaction.copy_in(&text).await?, &table.postgres_types());
    pin_mut!(writer);
    for row in table.typed()? {
        writer.as_mut().write(&references(&row)).await?;
    }
    assert_eq!(writer.finish().await?, table.rows.len() as u64);
    Ok(())
}

async fn load(client: &mut Client, method: &str, end: &str, tables: &[Table]) -> Outcome<()> {
    let transaction = client.transaction().await?;
    for table in tables {
        match method {
            "prepared" => execute(&transaction, table, &table.insert()).await?,
            "upsert" => execute(&transaction, table, &table.upsert()).await?,
            "copy" => copy(&transaction, table).await?,
            _ => return Err(format!("no method {method}").into()),
        }
    }
    if end == "rollback" {
        transaction.rollback().await?;
    } else {
        transaction.commit().await?;
    }
    Ok(())
}

fn config() -> Outcome<Config> {
    let mut config = Config::new();
    config.host(env::var("PGHOST")?).port(env::var("PGPORT")?.parse()?).dbname(env::var("PGDATABASE")?);
    config.user(env::var("PGUSER")?).password(env::var("PGPASSWORD")?);
    Ok(config)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [method, end, file] = &arguments[..] else { exit(2) };
    let tables: Vec<Table> = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let (mut client, mut connection) = config()?.connect(NoTls).await?;
    // The connection does the work, and has the server's notices.
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                println!("notice\t{}", notice.message());
            }
        }
    });
    match load(&mut client, method, end, &tables).await {
        Ok(()) if end == "rollback" => println!("rolled back"),
        Ok(()) => println!("committed"),
        Err(error) => {
            let Some(refusal) =
                error.downcast_ref::<tokio_postgres::Error>().and_then(|error| error.as_db_error())
            else {
                return Err(error);
            };
            println!("refused\t{}\t{}", refusal.code().code(), refusal.message());
        }
    }
    client.simple_query("SELECT 1").await?;
    println!("alive");
    Ok(())
}

//! What stands in docs/clients/tokio-postgres.md.

use futures_util::pin_mut;
use time::macros::datetime;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::NoTls;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), tokio_postgres::Error> {
    let connection_string = std::env::args().nth(1).expect("host=… user=… password=… dbname=…");
    let (mut client, connection) = tokio_postgres::connect(&connection_string, NoTls).await?;
    tokio::spawn(connection);

    let transaction = client.transaction().await?;
    let metadata = Json(serde_json::json!({ "unit": "m" }));
    let insert = "INSERT INTO timeseries (external_id, name, metadata) VALUES ($1, $2, $3)";
    transaction.execute(insert, &[&"level-1", &"Level 1", &metadata]).await?;

    let copy = r#"COPY datapoints (external_id, "timestamp", value) FROM STDIN (FORMAT binary)"#;
    let points = BinaryCopyInWriter::new(
        transaction.copy_in(copy).await?,
        &[Type::TEXT, Type::TIMESTAMPTZ, Type::FLOAT8],
    );
    pin_mut!(points);
    points.as_mut().write(&[&"level-1", &datetime!(2026-01-01 00:00 UTC), &20.5]).await?;
    points.as_mut().write(&[&"level-1", &datetime!(2026-01-01 00:01 UTC), &20.7]).await?;
    points.finish().await?;

    // An asset in a data set that does not exist.
    if std::env::args().nth(2).is_some() {
        transaction
            .execute("INSERT INTO assets (external_id, name, data_set_id) VALUES ('pump', 'Pump', 77)", &[])
            .await?;
    }
    transaction.commit().await // CDF has every row, or an error says why not
}

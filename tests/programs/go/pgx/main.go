// pgx: METHOD commit|rollback FILE, where FILE holds a load as JSON. PGX_OPTIONS is a connection string.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

type Table struct {
	Name    string
	Columns []string
	Keys    []string
	Types   []string
	Rows    [][]interface{}
}

func say(words ...string) {
	for at, word := range words {
		words[at] = strings.Join(strings.Fields(word), " ")
	}
	fmt.Println(strings.Join(words, "\t"))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func quoted(names []string) string {
	return `"` + strings.Join(names, `", "`) + `"`
}

// As Go's types: pgx sends them in PostgreSQL's binary format.
func typed(value interface{}, kind string) interface{} {
	if value == nil {
		return nil
	}
	switch kind {
	case "timestamptz":
		moment, err := time.Parse(time.RFC3339Nano, value.(string))
		check(err)
		return moment
	case "jsonb":
		var parsed map[string]interface{}
		check(json.Unmarshal([]byte(value.(string)), &parsed))
		return parsed
	case "bigint":
		return int64(value.(float64))
	}
	return value
}

func (table Table) typed() [][]interface{} {
	rows := make([][]interface{}, len(table.Rows))
	for at, row := range table.Rows {
		rows[at] = make([]interface{}, len(row))
		for column, value := range row {
			rows[at][column] = typed(value, table.Types[column])
		}
	}
	return rows
}

func (table Table) insert() string {
	places := make([]string, len(table.Columns))
	for at := range places {
		places[at] = fmt.Sprintf("$%d", at+1)
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table.Name, quoted(table.Columns), strings.Join(places, ", "))
}

func (table Table) upsert() string {
	var set []string
	for _, column := range table.Columns {
		if !contains(table.Keys, column) {
			set = append(set, fmt.Sprintf(`"%s" = EXCLUDED."%s"`, column, column))
		}
	}
	return fmt.Sprintf("%s ON CONFLICT (%s) DO UPDATE SET %s", table.insert(), quoted(table.Keys), strings.Join(set, ", "))
}

func contains(names []string, name string) bool {
	for _, each := range names {
		if each == name {
			return true
		}
	}
	return false
}

// A batch: all statements are sent before an answer is read.
func batch(ctx context.Context, tx pgx.Tx, table Table, statement string) error {
	batch := &pgx.Batch{}
	rows := table.typed()
	for _, row := range rows {
		batch.Queue(statement, row...)
	}
	results := tx.SendBatch(ctx, batch)
	defer results.Close()
	for range rows {
		if _, err := results.Exec(); err != nil {
			return err
		}
	}
	return results.Close()
}

var methods = map[string]func(context.Context, pgx.Tx, Table) error{
	"prepared": func(ctx context.Context, tx pgx.Tx, table Table) error {
		for _, row := range table.typed() {
			if _, err := tx.Exec(ctx, table.insert(), row...); err != nil {
				return err
			}
		}
		return nil
	},
	"batch":  func(ctx context.Context, tx pgx.Tx, table Table) error { return batch(ctx, tx, table, table.insert()) },
	"upsert": func(ctx context.Context, tx pgx.Tx, table Table) error { return batch(ctx, tx, table, table.upsert()) },
	// COPY in the binary format.
	"copy": func(ctx context.Context, tx pgx.Tx, table Table) error {
		_, err := tx.CopyFrom(ctx, pgx.Identifier{table.Name}, table.Columns, pgx.CopyFromRows(table.typed()))
		return err
	},
}

func load(ctx context.Context, connection *pgx.Conn, method string, end string, tables []Table) error {
	tx, err := connection.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	for _, table := range tables {
		if err := methods[method](ctx, tx, table); err != nil {
			return err
		}
	}
	if end == "rollback" {
		return tx.Rollback(ctx)
	}
	return tx.Commit(ctx)
}

func main() {
	ctx := context.Background()
	text, err := os.ReadFile(os.Args[3])
	check(err)
	var tables []Table
	check(json.Unmarshal(text, &tables))
	config, err := pgx.ParseConfig(os.Getenv("PGX_OPTIONS"))
	check(err)
	config.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { say("notice", notice.Message) }
	connection, err := pgx.ConnectConfig(ctx, config)
	check(err)
	err = load(ctx, connection, os.Args[1], os.Args[2], tables)
	var refusal *pgconn.PgError
	switch {
	case errors.As(err, &refusal):
		say("refused", refusal.Code, refusal.Message)
	case err != nil:
		panic(err)
	case os.Args[2] == "rollback":
		say("rolled back")
	default:
		say("committed")
	}
	_, err = connection.Exec(ctx, "SELECT 1")
	check(err)
	say("alive")
	connection.Close(ctx)
}

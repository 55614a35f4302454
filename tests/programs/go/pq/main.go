// lib/pq through database/sql: METHOD commit|rollback FILE, where FILE holds a load as JSON.
package main

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lib/pq"
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

func typed(value interface{}, kind string) interface{} {
	if value == nil {
		return nil
	}
	switch kind {
	case "timestamptz":
		moment, err := time.Parse(time.RFC3339Nano, value.(string))
		check(err)
		return moment
	case "bigint":
		return int64(value.(float64))
	}
	return value
}

func quoted(names []string) string {
	return `"` + strings.Join(names, `", "`) + `"`
}

func (table Table) upsert() string {
	var set []string
	for at, column := range table.Columns {
		if at >= len(table.Keys) || table.Keys[at] != column {
			set = append(set, fmt.Sprintf(`"%s" = EXCLUDED."%s"`, column, column))
		}
	}
	return fmt.Sprintf("%s ON CONFLICT (%s) DO UPDATE SET %s", table.insert(), quoted(table.Keys), strings.Join(set, ", "))
}

func (table Table) insert() string {
	places := make([]string, len(table.Columns))
	for at := range places {
		places[at] = fmt.Sprintf("$%d", at+1)
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table.Name, quoted(table.Columns), strings.Join(places, ", "))
}

func run(tx *sql.Tx, table Table, text string, copying bool) error {
	statement, err := tx.Prepare(text)
	if err != nil {
		return err
	}
	defer statement.Close()
	for _, row := range table.Rows {
		values := make([]interface{}, len(row))
		for at, value := range row {
			values[at] = typed(value, table.Types[at])
		}
		if _, err := statement.Exec(values...); err != nil {
			return err
		}
	}
	if copying {
		_, err = statement.Exec()
	}
	return err
}

var methods = map[string]func(*sql.Tx, Table) error{
	"prepared": func(tx *sql.Tx, table Table) error { return run(tx, table, table.insert(), false) },
	"upsert":   func(tx *sql.Tx, table Table) error { return run(tx, table, table.upsert(), false) },
	"copy":     func(tx *sql.Tx, table Table) error { return run(tx, table, pq.CopyIn(table.Name, table.Columns...), true) },
}

func load(db *sql.DB, method string, end string, tables []Table) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, table := range tables {
		if err := methods[method](tx, table); err != nil {
			return err
		}
	}
	if end == "rollback" {
		return tx.Rollback()
	}
	return tx.Commit()
}

func main() {
	text, err := os.ReadFile(os.Args[3])
	check(err)
	var tables []Table
	check(json.Unmarshal(text, &tables))
	base, err := pq.NewConnector("sslmode=disable")
	check(err)
	db := sql.OpenDB(pq.ConnectorWithNoticeHandler(base, func(notice *pq.Error) { say("notice", notice.Message) }))
	db.SetMaxOpenConns(1)
	err = load(db, os.Args[1], os.Args[2], tables)
	var refusal *pq.Error
	switch {
	case errors.As(err, &refusal):
		say("refused", string(refusal.Code), refusal.Message)
	case err != nil:
		panic(err)
	case os.Args[2] == "rollback":
		say("rolled back")
	default:
		say("committed")
	}
	_, err = db.Exec("SELECT 1")
	check(err)
	say("alive")
}

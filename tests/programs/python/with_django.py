"""Django's ORM: unmanaged models."""

import json

import django
from django.conf import settings
from given import request

dsn = request.dsn
settings.configure(
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": dsn["host"],
            "PORT": dsn["port"],
            "USER": dsn["user"],
            "PASSWORD": dsn["password"],
            "NAME": dsn["dbname"],
        }
    },
)
django.setup()

from django.db import connection, models, transaction  # noqa: E402


class Unmanaged(models.Model):
    class Meta:
        abstract = True
        managed = False
        app_label = "gateway"


class Asset(Unmanaged):
    external_id = models.TextField(primary_key=True)
    name = models.TextField()
    parent_external_id = models.TextField(null=True)
    description = models.TextField(null=True)
    metadata = models.JSONField(null=True)
    data_set_id = models.BigIntegerField(null=True)

    class Meta(Unmanaged.Meta):
        db_table = "assets"


class Event(Unmanaged):
    external_id = models.TextField(primary_key=True)
    start_time = models.DateTimeField(null=True)
    end_time = models.DateTimeField(null=True)
    type = models.TextField(null=True)
    description = models.TextField(null=True)
    metadata = models.JSONField(null=True)

    class Meta(Unmanaged.Meta):
        db_table = "events"


class Series(Unmanaged):
    external_id = models.TextField(primary_key=True)
    name = models.TextField(null=True)
    unit = models.TextField(null=True)
    is_step = models.BooleanField(null=True)
    metadata = models.JSONField(null=True)

    class Meta(Unmanaged.Meta):
        db_table = "timeseries"


class Point(Unmanaged):
    pk = models.CompositePrimaryKey("external_id", "timestamp")
    external_id = models.TextField()
    timestamp = models.DateTimeField()
    value = models.FloatField(null=True)

    class Meta(Unmanaged.Meta):
        db_table = "datapoints"


class RawRow(Unmanaged):
    pk = models.CompositePrimaryKey("db_name", "table_name", "key")
    db_name = models.TextField()
    table_name = models.TextField()
    key = models.TextField()
    columns = models.JSONField()

    class Meta(Unmanaged.Meta):
        db_table = "raw_rows"


MODELS = {model._meta.db_table: model for model in Unmanaged.__subclasses__()}

connection.ensure_connection()
connection.connection.add_notice_handler(lambda notice: print(f"{notice.severity}: {notice.message_primary}"))


class RolledBack(Exception):
    pass


try:
    with transaction.atomic():
        for table in request.tables:
            model = MODELS[table.name]
            items = [model(**row) for row in table.mappings(json.loads)]
            match request.how:
                case "bulk_create":
                    model.objects.bulk_create(items)
                case "update_conflicts":
                    model.objects.bulk_create(items, update_conflicts=True, update_fields=table.rest, unique_fields=table.keys)
                case "save":
                    for item in items:
                        item.save(force_insert=True)
                case "update_or_create":
                    for row in table.mappings(json.loads):
                        keys = {key: row.pop(key) for key in table.keys}
                        # Of an item that exists, None would clear what it has.
                        given = {name: value for name, value in row.items() if value is not None}
                        model.objects.update_or_create(**keys, defaults=given)
        if request.rolls_back:
            raise RolledBack
except RolledBack:
    pass

from django.db import migrations

from chatstore.indexes import TimeIndex
from chatstore.migration_operations import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('conversations', '0005_usage'),
    ]

    operations = [
        AddIndexOnline(
            model_name='message',
            index=TimeIndex(
                autosummarize=True,
                fields=['created_at'],
                name='message_time',
                opclasses=['timestamptz_minmax_multi_ops'],
                pages_per_range=64,
            ),
        ),
    ]

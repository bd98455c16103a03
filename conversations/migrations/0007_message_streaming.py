from django.db import migrations, models

from chatstore.migration_operations import AddIndexOnline


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('conversations', '0006_message_time'),
    ]

    operations = [
        AddIndexOnline(
            model_name='message',
            index=models.Index(
                condition=models.Q(('status', 'streaming')),
                fields=['session'],
                name='message_streaming',
            ),
        ),
    ]

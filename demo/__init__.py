"""The demonstration: a bucket becomes labeling tasks, and annotations become objects.

All of it through Airflow, on this machine; and the storage proxy serves the media.

media        pictures and sounds that Python packages bring along, and their licences
task_files   task files in every shape, about those media
bucket       both, put into an S3 server, and a bucket for exports
weed         the S3 server (SeaweedFS)
standalone   Airflow, with its home in the demonstration's
rest         Airflow's REST API: start a dag run, ask what became of it
catalog      the project and its storages
importing    the import of both
annotating   what people would do in a labeling program
exporting    the export of that, by hand and within seconds of each change
proxy        the storage proxy, beside Airflow
serving      who gets what from it, and who does not
following    dag runs, watched to their end
screen       what a person sees
processes    child processes that end with the demonstration
"""
